"""Moves between two noise levels, adjacent or not: all coefficients of the posterior."""

from typing import NamedTuple

import numpy as np

from diffusion_jax.core.schedules import Schedule


class NoiseLevel(NamedTuple):
    """Float64 tables of noise levels, x = signal x0 + noise eps; the data have noise 0."""

    signal: np.ndarray
    noise: np.ndarray
    log_snr: np.ndarray


class Moves(NamedTuple):
    """Tables of moves from step t to a step s nearer to the data (s = -1: the data itself).

    Given x_t and x0, q(x_s | x_t, x0) = N(x0_weight x0 + xt_weight x_t, posterior_var I), and
    q(x_t | x_s) has the variance `forward_var` (Kingma et al. 2021, eqs. 20 and 22). With
    l the log-SNR and k = 1 - exp(l_t - l_s):

    x0_weight = signal_s k,  xt_weight = (signal_s / signal_t)(1 - k),
    posterior_var = noise_s^2 k,  forward_var = noise_t^2 k.

    From pure noise, k is 1 and xt_weight is 0, its limit as signal_t falls to 0. `start` and `end`
    are the levels of t and s. For moves towards noise (s > t, DDIM inversion) only `t`, `s`,
    `start` and `end` are meaningful.
    """

    t: np.ndarray
    s: np.ndarray
    start: NoiseLevel
    end: NoiseLevel
    x0_weight: np.ndarray
    xt_weight: np.ndarray
    posterior_var: np.ndarray
    forward_var: np.ndarray


def moves(schedule: Schedule, t, s) -> Moves:
    """Compute the moves t[i] -> s[i] in float64; a move may skip any number of steps."""
    t, s = np.asarray(t, np.int32), np.asarray(s, np.int32)
    start, end = levels(schedule, t), levels(schedule, s)
    k = -np.expm1(np.minimum(start.log_snr - end.log_snr, 0.0))
    growth = np.divide(
        end.signal, start.signal, out=np.zeros_like(end.signal), where=start.signal > 0.0
    )
    return Moves(
        t=t,
        s=s,
        start=start,
        end=end,
        x0_weight=end.signal * k,
        xt_weight=growth * (1.0 - k),
        posterior_var=np.square(end.noise) * k,
        forward_var=np.square(start.noise) * k,
    )


def levels(schedule: Schedule, t: np.ndarray) -> NoiseLevel:
    """Return the levels of steps t, where -1 is the data: all signal, no noise."""
    return NoiseLevel(
        np.append(schedule.signal, 1.0)[t],
        np.append(schedule.noise, 0.0)[t],
        np.append(schedule.log_snr, np.inf)[t],
    )


def single_steps(schedule: Schedule) -> Moves:
    """Return the moves t -> t-1 of the training chain, with row t for step t."""
    t = np.arange(schedule.steps)
    return moves(schedule, t, t - 1)


def descent(grid: Schedule) -> Moves:
    """Return a sampler's moves: level by level from the grid's noisiest down to the data."""
    t = np.arange(grid.steps)[::-1]
    return moves(grid, t, t - 1)
