"""Noise schedules: how much signal and noise each step has, computed in float64 NumPy.

To add one: write a function that returns a `Schedule` and add its line to `SCHEDULES`. Its
arguments are read from the keys of the same name under `config.schedule`, except `levels`, the
data's number of levels.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from diffusion_jax.core.paths import VARIANCE_EXPLODING, VARIANCE_PRESERVING, Path


@dataclass(frozen=True, eq=False)
class Schedule:
    """The marginals q(x_t | x0) = N(signal x0, noise^2 I) of each step t = 0 .. T-1.

    Every table is float64 `[T]`; `log_snr` = log(signal^2 / noise^2) is strictly decreasing. Its
    last value is -inf if the last step is pure noise, see `zero_terminal`.
    `time` is the network's time input: t itself on the training steps, a fraction between them.
    `parent` is the training schedule from which a coarser or finer grid was derived.
    """

    log_snr: np.ndarray
    signal: np.ndarray
    noise: np.ndarray
    time: np.ndarray
    path: Path
    parent: "Schedule | None" = None

    def __repr__(self) -> str:
        first, last = self.log_snr[[0, -1]]
        return f"Schedule({self.steps} steps, log-SNR {first:.4g} to {last:.4g})"

    @property
    def steps(self) -> int:
        """The number of noise levels; T for a training schedule."""
        return len(self.log_snr)

    @property
    def scale(self) -> np.ndarray:
        """sqrt(signal^2 + noise^2), the standard deviation of x_t for data of unit variance.

        Networks receive x_t / scale, and the prior is N(0, scale_T^2 I). The scale is 1 on
        variance-preserving paths.
        """
        return np.hypot(self.signal, self.noise)

    def at_log_snr(self, log_snr: np.ndarray) -> "Schedule":
        """Return the grid of other, decreasing log-SNRs on this path; times are interpolated.

        Between a step of pure noise and the step before it, the time is that of the step before.
        """
        parent = self.parent or self
        time = np.interp(-log_snr, -parent.log_snr, parent.time)
        return from_log_snr(log_snr, self.path, time, parent)

    def take(self, t) -> "Schedule":
        """Return the grid of the steps `t`, which must be in ascending order."""
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
    """Build the schedule of a log-SNR table along a path, variance-preserving by default."""
    log_snr = np.asarray(log_snr, np.float64)
    time = np.arange(len(log_snr), dtype=np.float64) if time is None else time
    return Schedule(log_snr, *path.levels(log_snr), time, path, parent)


def uniform_log_snr(schedule: Schedule, points: int) -> Schedule:
    """Return a grid evenly spaced in log-SNR between the schedule's two ends, see `spaced`."""
    return spaced(schedule, points, lambda first, last, n: np.linspace(last, first, n)[::-1])


def spaced(
    schedule: Schedule, points: int, spacing: Callable[[float, float, int], np.ndarray]
) -> Schedule:
    """Return a grid of log-SNRs between the schedule's two ends.

    With one point, the grid is the noisy end. If that end is pure noise, whose log-SNR is infinite,
    all other points lie between the first and the second-to-last step.

    Args:
        points: number of points.
        spacing: `(first, last, n) -> log-SNRs`, `n` decreasing numbers; for n = 1, the last one.
    """
    first, last = schedule.log_snr[[0, -1]]
    if np.isfinite(last):
        return schedule.at_log_snr(spacing(first, last, points))
    # Two points are the two ends, so the first of them is taken from a spacing of two.
    finite = spacing(first, schedule.log_snr[-2], max(points - 1, 2))[: points - 1]
    return schedule.at_log_snr(np.append(finite, last))


def _from_log_alpha_bar(log_alpha_bar: np.ndarray) -> Schedule:
    return from_log_snr(log_alpha_bar - np.log(-np.expm1(log_alpha_bar)))


def zero_terminal(schedule: Schedule) -> Schedule:
    """Shift and scale the signal so that the last step is pure noise (Lin et al. 2023, alg. 1).

    signal'_t = signal_1 (signal_t - signal_T) / (signal_1 - signal_T): the first step is unchanged,
    and the last log-SNR is -inf.

    Raises:
        ValueError: the schedule has a single step, or does not preserve variance.
    """
    if schedule.path != VARIANCE_PRESERVING:
        raise ValueError(
            "zero_terminal needs a variance-preserving schedule; use one, such as 'cosine', or set "
            "zero_terminal to False"
        )
    if schedule.steps < 2:
        raise ValueError("zero_terminal needs at least 2 steps; there is 1")
    signal, first = schedule.signal[:-1], schedule.signal[0]
    kept = (signal - schedule.signal[-1]) / (first - schedule.signal[-1])
    # 1 - signal'^2, without cancellation where the noise is small
    noise_var = np.square(schedule.noise[0]) + np.square(first) * (1.0 - kept) * (1.0 + kept)
    log_snr = 2.0 * np.log(first * kept) - np.log(noise_var)
    log_snr[0] = schedule.log_snr[0]  # not even rounded
    return from_log_snr(np.append(log_snr, -np.inf))


def from_betas(betas: Sequence[float] | np.ndarray = ()) -> Schedule:
    """Build a schedule from forward variances beta_t: alpha_bar_t = prod_{i <= t} (1 - beta_i).

    The product is computed as a sum of logarithms.

    Args:
        betas: the variances of all steps, between 0 and 1.

    Raises:
        ValueError: `betas` is empty or has a value outside (0, 1).
    """
    betas = np.asarray(betas, np.float64)
    if betas.ndim != 1 or not betas.size or not np.all((betas > 0.0) & (betas < 1.0)):
        raise ValueError("betas must be a non-empty list of numbers between 0 and 1, both excluded")
    return _from_log_alpha_bar(np.cumsum(np.log1p(-betas)))


def linear(steps: int, beta_start: float = 1e-4, beta_end: float = 0.02) -> Schedule:
    """Build the schedule of linearly increasing betas (Ho et al. 2020, section 4).

    Args:
        steps: number of noise levels, T.
        beta_start: the first beta.
        beta_end: the last beta.
    """
    if beta_start > beta_end:
        raise ValueError(f"beta_start {beta_start:g} must not exceed beta_end {beta_end:g}")
    return from_betas(np.linspace(beta_start, beta_end, steps))


def cosine(steps: int, cosine_offset: float = 0.008, beta_max: float = 0.999) -> Schedule:
    """Build the cosine schedule (Nichol & Dhariwal 2021, eq. 17).

    alpha_bar(u) = cos^2((u + c)/(1 + c) pi/2), c = cosine_offset, with betas of at most `beta_max`.

    Args:
        steps: number of noise levels, T.
        cosine_offset: keeps the first betas from being too small.
        beta_max: the largest beta.
    """
    u = np.arange(steps + 1) / steps
    alpha_bar = np.cos((u + cosine_offset) / (1.0 + cosine_offset) * math.pi / 2.0) ** 2
    return from_betas(np.minimum(1.0 - alpha_bar[1:] / alpha_bar[:-1], beta_max))


def sigmoid(
    steps: int, sigmoid_start: float = -3.0, sigmoid_end: float = 3.0, sigmoid_tau: float = 1.0
) -> Schedule:
    """Build the schedule whose alpha_bar is a decreasing sigmoid (Chen 2023, algorithm 1).

    alpha_bar(u) = (g(end) - g(start + u (end - start))) / (g(end) - g(start)), clipped from below
    at 1e-9, with g(z) = 1/(1 + exp(-z/tau)) and the arguments for start, end and tau.

    Args:
        steps: number of noise levels, T.
        sigmoid_start: where the piece of the sigmoid starts.
        sigmoid_end: where it ends.
        sigmoid_tau: temperature of the sigmoid.
    """
    g = 1.0 / (1.0 + np.exp(-np.linspace(sigmoid_start, sigmoid_end, steps + 1) / sigmoid_tau))
    alpha_bar = np.maximum((g[-1] - g[1:]) / (g[-1] - g[0]), 1e-9)
    return _from_log_alpha_bar(np.log(alpha_bar))


def log_snr_linear(
    steps: int, levels: int, log_snr_max: float | None = None, log_snr_min: float = -10.0
) -> Schedule:
    """Build the schedule whose log-SNR decreases linearly (Kingma et al. 2021).

    Args:
        steps: number of noise levels, T.
        levels: number of levels of the data.
        log_snr_max: log-SNR of the first step; by default its noise is a sixth of the width of one
            data level, 2/(levels - 1)/6.
        log_snr_min: log-SNR of the last step.
    """
    if log_snr_max is None:
        noise = 2.0 / (levels - 1) / 6.0
        log_snr_max = math.log1p(-(noise**2)) - 2.0 * math.log(noise)
    if log_snr_max <= log_snr_min:
        raise ValueError(f"log_snr_max {log_snr_max:g} must exceed log_snr_min {log_snr_min:g}")
    return from_log_snr(np.linspace(log_snr_max, log_snr_min, steps))


def variance_exploding(steps: int, noise_min: float = 0.01, noise_max: float = 10.0) -> Schedule:
    """Build geometric noise levels on an unscaled signal (Song & Ermon 2019, section 4).

    noise(u) = noise_min (noise_max / noise_min)^u.

    Args:
        steps: number of noise levels, T.
        noise_min: the first noise level.
        noise_max: the last noise level.
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
