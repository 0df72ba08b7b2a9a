"""Heun's method for the probability-flow ODE in x / signal, and EDM's sampler with noise churn."""

import math

import numpy as np

from diffusion_jax.core.moves import Moves, NoiseLevel, levels, moves
from diffusion_jax.core.schedules import Schedule
from diffusion_jax.samplers.base import Plan, Sampler, Stage, interleave
from diffusion_jax.samplers.linear import linear_sampler, table

LARGEST_CHURN = math.sqrt(2.0) - 1.0  # Karras et al. 2022, algorithm 2


def heun() -> Sampler:
    """Build Heun's second-order method (Karras et al. 2022, algorithm 1).

    It makes two network calls per move, but only one for the last move and for a move from pure
    noise, where x / signal is infinite and the Euler step's limit is a DDIM step.
    """
    return edm(churn=0.0)


def edm(churn: float = 40.0) -> Sampler:
    """Raise the noise a little before each move except the first, then move by Heun's method.

    With sigma = noise / signal: sigma_hat = sigma (1 + min(churn / moves, sqrt 2 - 1)), at most the
    schedule's largest finite one; x_hat / signal_hat = x / signal + sqrt(sigma_hat^2 - sigma^2) eps
    (Karras et al. 2022, algorithm 2). A move's first call gives an Euler step, its second the
    trapezoidal correction.

    Args:
        churn: noise added over all moves, in units of the noise level; 0 is Heun's method.

    Raises:
        ValueError: churn is negative.
    """
    if churn < 0.0:
        raise ValueError(f"churn must not be negative, got {churn:g}")

    def plan(grid: Schedule, taken: Moves) -> Plan:
        growth = min(churn / len(np.unique(taken.t)), LARGEST_CHURN)  # repeats of a move count once
        # Noise is added in a move's second row, which a move from pure noise does not have.
        twice = taken.start.signal > 0.0
        follows = np.append(False, (taken.t[1:] == taken.s[:-1]) & twice[:-1])
        raised = taken.start.log_snr - 2.0 * math.log1p(growth) * follows
        raised = np.maximum(raised, np.minimum(taken.start.log_snr, _noisiest(grid)))
        points, t, s = _points(grid, taken, raised)
        moved = moves(points, t, s)
        return Plan(points, interleave([_euler(moved), _trapezium(points, moved, follows)]))

    return linear_sampler(plan, order=2)


def _noisiest(grid: Schedule) -> float:
    log_snr = (grid.parent or grid).log_snr
    return log_snr[np.isfinite(log_snr)][-1]


def _points(grid: Schedule, taken: Moves, raised: np.ndarray):
    """Return all levels at which the network is called, and the indices of each move's ends."""
    ends = np.where(taken.s >= 0, taken.end.log_snr, raised)
    rising, where = np.unique(-np.append(raised, ends), return_inverse=True)
    t, s = np.split(where, 2)
    return grid.at_log_snr(-rising), t, np.where(taken.s >= 0, s, -1)


def _euler(moved: Moves) -> Stage:
    """Return the Euler step x_s / signal_s = x / signal + (sigma_s - sigma) eps_hat."""
    x0_weight = moved.end.signal * (1.0 - _sigma(moved.end) / _sigma(moved.start))
    rows = table(moved.t, moved.end.noise / moved.start.noise, [x0_weight, 0.0])
    return Stage(rows, moved.end.signal, moved.end.noise, np.ones(len(moved.t), bool))


def _trapezium(points: Schedule, moved: Moves, follows: np.ndarray) -> Stage:
    """Redo the move with the mean of both slopes, then add noise up to the next move's start."""
    taken = (moved.s >= 0) & (moved.start.signal > 0.0)

    def level(t) -> NoiseLevel:  # with placeholders where not taken
        return NoiseLevel(*(np.where(taken, each, 1.0) for each in levels(points, t)))

    start, end = level(moved.t), level(moved.s)
    leads = np.append(follows[1:], False)
    after = level(np.where(leads, np.roll(moved.t, -1), moved.s))
    half = 0.5 * (_sigma(end) - _sigma(start))
    raise_std = np.sqrt(np.maximum(np.square(_sigma(after)) - np.square(_sigma(end)), 0.0))
    rows = table(
        moved.s,
        after.signal * half / end.noise,
        [-after.signal * half / _sigma(end), -after.signal * half / _sigma(start)],
        after.signal * raise_std,
        after.signal * (1.0 / start.signal + half / start.noise),
    )
    return Stage(rows, after.signal, after.noise, taken)


def _sigma(level: NoiseLevel) -> np.ndarray:
    """Return noise / signal, the noise on an unscaled signal; infinite for pure noise."""
    infinite = np.full_like(level.noise, np.inf)
    return np.divide(level.noise, level.signal, out=infinite, where=level.signal > 0.0)
