"""Noise schedules: how much signal and noise each step holds, made in float64 NumPy.

To add one: write a function that returns a `Schedule` and add its line to `SCHEDULES`. Arguments
with a key of the same name under `config.schedule` are read from there; `levels` is the data's.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np


class Path(NamedTuple):
    """How signal and noise go with the log-SNR l, float64 in and out.

    levels: `(l) -> (signal, noise)`, with log(signal^2 / noise^2) = l.
    drift: `(l) -> d log(signal) / dl`.
    """

    levels: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
    drift: Callable[[np.ndarray], np.ndarray]


def _root_of_sigmoid(log_snr: np.ndarray) -> np.ndarray:
    return np.exp(-0.5 * np.logaddexp(0.0, -log_snr))


# signal^2 = sigmoid(l) = 1 - noise^2: data of unit variance keep it (Ho et al. 2020).
VARIANCE_PRESERVING = Path(
    lambda log_snr: (_root_of_sigmoid(log_snr), _root_of_sigmoid(-log_snr)),
    lambda log_snr: 0.5 * np.square(_root_of_sigmoid(-log_snr)),
)
# signal = 1: noise is added and nothing taken away (Song & Ermon 2019).
VARIANCE_EXPLODING = Path(
    lambda log_snr: (np.ones_like(log_snr), np.exp(-0.5 * log_snr)),
    np.zeros_like,
)


@dataclass(frozen=True, eq=False)
class Schedule:
    """The marginals q(x_t | x0) = N(signal x0, noise^2 I) of each step t = 0 .. T-1.

    Every table is float64 `[T]`; `log_snr` = log(signal^2 / noise^2) falls strictly.
    `time` is the network's time input: t itself on the training steps, fractions between them.
    `parent` is the training schedule that a coarser or finer grid was cut from.
    """

    log_snr: np.ndarray
    signal: np.ndarray
    noise: np.ndarray
    time: np.ndarray
    path: Path
    parent: "Schedule | None" = None

    @property
    def steps(self) -> int:
        """T, the number of training steps."""
        return len(self.log_snr)

    @property
    def scale(self) -> np.ndarray:
        """sqrt(signal^2 + noise^2), the standard deviation of x_t for data of unit variance.

        Networks see x_t over it, and the prior is N(0, scale_T^2 I); 1 if variance is preserved.
        """
        return np.hypot(self.signal, self.noise)

    def at_log_snr(self, log_snr: np.ndarray) -> "Schedule":
        """The same path at other log-SNRs, falling ones; times between steps are interpolated."""
        parent = self.parent or self
        time = np.interp(-log_snr, -parent.log_snr, parent.time)
        return from_log_snr(log_snr, self.path, time, parent)

    def take(self, t) -> "Schedule":
        """The grid of some of the steps, in rising order."""
        return Schedule(
            self.log_snr[t],
            self.signal[t],
            self.noise[t],
            self.time[t],
            self.path,
            self.parent or self,
        )


def from_log_snr(
    log_snr: np.ndarray,
    path: Path = VARIANCE_PRESERVING,
    time: np.ndarray | None = None,
    parent: Schedule | None = None,
) -> Schedule:
    """The schedule of a log-SNR table along a path, by default the variance-preserving one."""
    log_snr = np.asarray(log_snr, np.float64)
    time = np.arange(len(log_snr), dtype=np.float64) if time is None else time
    return Schedule(log_snr, *path.levels(log_snr), time, path, parent)


def uniform_log_snr(schedule: Schedule, points: int) -> Schedule:
    """A grid between the same ends, evenly spaced in log-SNR; of a single point, the noisy end."""
    return schedule.at_log_snr(np.linspace(schedule.log_snr[-1], schedule.log_snr[0], points)[::-1])


def _from_log_alpha_bar(log_alpha_bar: np.ndarray) -> Schedule:
    return from_log_snr(log_alpha_bar - np.log(-np.expm1(log_alpha_bar)))


def from_betas(betas) -> Schedule:
    """Any user's forward variances beta_t: alpha_bar_t = prod (1 - beta_i), summed as logarithms.

    Raises:
        ValueError: `betas` is empty or leaves (0, 1).
    """
    betas = np.asarray(betas, np.float64)
    if betas.ndim != 1 or not betas.size or not np.all((betas > 0.0) & (betas < 1.0)):
        raise ValueError("betas must be a non-empty list of numbers between 0 and 1, both excluded")
    return _from_log_alpha_bar(np.cumsum(np.log1p(-betas)))


def linear(steps: int, beta_start: float = 1e-4, beta_end: float = 0.02) -> Schedule:
    """Betas that grow linearly from `beta_start` to `beta_end` (Ho et al. 2020, section 4)."""
    if beta_start > beta_end:
        raise ValueError(f"beta_start {beta_start:g} must not exceed beta_end {beta_end:g}")
    return from_betas(np.linspace(beta_start, beta_end, steps))


def cosine(steps: int, offset: float = 0.008, beta_max: float = 0.999) -> Schedule:
    """alpha_bar(u) = cos^2((u + offset)/(1 + offset) pi/2) (Nichol & Dhariwal 2021, eq. 17)."""
    u = np.arange(steps + 1) / steps
    alpha_bar = np.cos((u + offset) / (1.0 + offset) * math.pi / 2.0) ** 2
    return from_betas(np.minimum(1.0 - alpha_bar[1:] / alpha_bar[:-1], beta_max))


def sigmoid(steps: int, start: float = -3.0, end: float = 3.0, tau: float = 1.0) -> Schedule:
    """alpha_bar(u) follows a falling sigmoid over [start, end] (Chen 2023, algorithm 1).

    alpha_bar(u) = (g(end) - g(start + u (end - start))) / (g(end) - g(start)),
    g(z) = 1/(1 + exp(-z/tau)), held above 1e-9.
    """
    g = 1.0 / (1.0 + np.exp(-np.linspace(start, end, steps + 1) / tau))
    alpha_bar = np.maximum((g[-1] - g[1:]) / (g[-1] - g[0]), 1e-9)
    return _from_log_alpha_bar(np.log(alpha_bar))


def log_snr_linear(
    steps: int, levels: int, log_snr_max: float | None = None, log_snr_min: float = -10.0
) -> Schedule:
    """Log-SNR that falls linearly from `log_snr_max` to `log_snr_min` (Kingma et al. 2021).

    By default the first step's noise is a sixth of a bin of the data's `levels`: 2/(levels - 1)/6.
    """
    if log_snr_max is None:
        noise = 2.0 / (levels - 1) / 6.0
        log_snr_max = math.log1p(-(noise**2)) - 2.0 * math.log(noise)
    if log_snr_max <= log_snr_min:
        raise ValueError(f"log_snr_max {log_snr_max:g} must exceed log_snr_min {log_snr_min:g}")
    return from_log_snr(np.linspace(log_snr_max, log_snr_min, steps))


def variance_exploding(steps: int, noise_min: float = 0.01, noise_max: float = 10.0) -> Schedule:
    """Noise levels in geometric progression on an unscaled signal (Song & Ermon 2019, section 4).

    noise(u) = noise_min (noise_max / noise_min)^u.
    """
    if not 0.0 < noise_min < noise_max:
        raise ValueError(f"noise_min {noise_min:g} must lie between 0 and noise_max {noise_max:g}")
    noise = np.geomspace(noise_min, noise_max, steps)
    return from_log_snr(-2.0 * np.log(noise), VARIANCE_EXPLODING)


SCHEDULES = {
    "linear": linear,
    "cosine": cosine,
    "sigmoid": sigmoid,
    "log_snr": log_snr_linear,
    "variance_exploding": variance_exploding,
    "betas": from_betas,
}
