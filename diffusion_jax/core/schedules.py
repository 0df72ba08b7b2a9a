"""Noise schedules: how much signal and noise each step holds, made in float64 NumPy.

To add one: write a function that returns a `Schedule` and add its line to `SCHEDULES`. Arguments
with a key of the same name under `config.schedule` are read from there; `levels` is the data's.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np


@dataclass(frozen=True, eq=False)
class Schedule:
    """The marginals q(x_t | x0) = N(signal x0, noise^2 I) of each step t = 0 .. T-1.

    Every field is a float64 table `[T]`; `log_snr` = log(signal^2 / noise^2) falls strictly.
    `time` is what the network is told: t itself on the training steps, fractions between them.
    """

    log_snr: np.ndarray
    signal: np.ndarray
    noise: np.ndarray
    time: np.ndarray

    @property
    def steps(self) -> int:
        """T, the number of training steps."""
        return len(self.log_snr)


class Moves(NamedTuple):
    """Tables of moves from step t to a step s nearer to the data (s = -1: the data itself).

    Given x_t and x0, q(x_s | x_t, x0) = N(x0_weight x0 + xt_weight x_t, posterior_var I), and
    q(x_t | x_s) has the variance `forward_var` (Kingma et al. 2021, eqs. 20 and 22). With
    l the log-SNR and k = 1 - exp(l_t - l_s):

    x0_weight = signal_s k,  xt_weight = (signal_s / signal_t)(1 - k),
    posterior_var = noise_s^2 k,  forward_var = noise_t^2 k.
    """

    index: np.ndarray
    t: np.ndarray
    s: np.ndarray
    x0_weight: np.ndarray
    xt_weight: np.ndarray
    posterior_var: np.ndarray
    forward_var: np.ndarray


def moves(schedule: Schedule, t, s) -> Moves:
    """The moves t[i] -> s[i], all coefficients in float64 whatever steps lie between."""
    t, s = np.asarray(t, np.int32), np.asarray(s, np.int32)
    log_snr = np.append(schedule.log_snr, np.inf)  # index -1 is the data: all signal, no noise
    signal, noise = np.append(schedule.signal, 1.0), np.append(schedule.noise, 0.0)
    k = -np.expm1(log_snr[t] - log_snr[s])
    return Moves(
        index=np.arange(len(t), dtype=np.int32),
        t=t,
        s=s,
        x0_weight=signal[s] * k,
        xt_weight=signal[s] / signal[t] * (1.0 - k),
        posterior_var=np.square(noise[s]) * k,
        forward_var=np.square(noise[t]) * k,
    )


def single_steps(schedule: Schedule) -> Moves:
    """The training chain's own moves t -> t-1, in the order of t, so that row t is step t."""
    t = np.arange(schedule.steps)
    return moves(schedule, t, t - 1)


def from_log_snr(log_snr: np.ndarray, time: np.ndarray | None = None) -> Schedule:
    """The variance-preserving schedule of a log-SNR table: signal^2 = sigmoid(l) = 1 - noise^2."""
    log_snr = np.asarray(log_snr, np.float64)
    return Schedule(
        log_snr=log_snr,
        signal=np.exp(-0.5 * np.logaddexp(0.0, -log_snr)),
        noise=np.exp(-0.5 * np.logaddexp(0.0, log_snr)),
        time=np.arange(len(log_snr), dtype=np.float64) if time is None else time,
    )


def uniform_log_snr(schedule: Schedule, points: int) -> Schedule:
    """A schedule between the same ends, evenly spaced in log-SNR; times are interpolated.

    Raises:
        ValueError: `points` is below 2.
    """
    if points < 2:
        raise ValueError(f"a log-SNR grid needs at least 2 points, got {points}")
    log_snr = np.linspace(schedule.log_snr[0], schedule.log_snr[-1], points)
    return from_log_snr(log_snr, np.interp(-log_snr, -schedule.log_snr, schedule.time))


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


SCHEDULES = {
    "linear": linear,
    "cosine": cosine,
    "sigmoid": sigmoid,
    "log_snr": log_snr_linear,
    "betas": from_betas,
}
