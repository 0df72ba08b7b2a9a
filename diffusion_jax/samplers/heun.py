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


def edm(
    churn: float = 40.0,
    churn_noise: float = 1.0,
    churn_min: float = 0.0,
    churn_max: float | None = None,
    churn_first: bool = True,
) -> Sampler:
    """Raise the noise a little before each move, then move by Heun's method.

    With sigma = noise / signal: sigma_hat = sigma (1 + min(churn / moves, sqrt 2 - 1)) for sigma in
    [churn_min, churn_max], x_hat / signal_hat = x / signal + churn_noise sqrt(sigma_hat^2 -
    sigma^2) eps (Karras et al. 2022, algorithm 2). A move's first call gives an Euler step, its
    second the trapezoidal correction.

    sigma_hat is at most the schedule's largest finite sigma, because networks know no larger one:
    the first move from there is not raised.

    Args:
        churn: noise added over all moves, in units of the noise level; 0 is Heun's method.
        churn_noise: factor of the added noise; the paper uses up to 1.007.
        churn_min: sigma below which no noise is added.
        churn_max: sigma above which no noise is added, None for no limit.
        churn_first: also raise the first move, where sampling starts below the noisiest level; it
            costs a network call whose prediction is not used.

    Raises:
        ValueError: churn is negative, or another argument is out of range.
    """
    if churn < 0.0:
        raise ValueError(f"churn must not be negative, got {churn:g}")
    if churn_noise <= 0.0:
        raise ValueError(f"churn_noise must be above 0, got {churn_noise:g}")
    largest = math.inf if churn_max is None else churn_max
    if not 0.0 <= churn_min <= largest:
        raise ValueError(f"churn_min must lie between 0 and churn_max, got {churn_min:g}")

    def plan(grid: Schedule, taken: Moves) -> Plan:
        growth = min(churn / len(np.unique(taken.t)), LARGEST_CHURN)  # repeats of a move count once
        sigma = _sigma(taken.start)
        inside = (sigma >= churn_min) & (sigma <= largest)
        # Noise is added in a move's second row, which a move from pure noise does not have.
        twice = taken.start.signal > 0.0
        follows = np.append(False, (taken.t[1:] == taken.s[:-1]) & twice[:-1])
        churned = inside & (follows | (twice & churn_first))
        raised = taken.start.log_snr - 2.0 * math.log1p(growth) * churned
        raised = np.maximum(raised, np.minimum(taken.start.log_snr, _noisiest(grid)))
        alone = ~follows & (raised < taken.start.log_snr)  # noise has a row of its own
        points, t, s, before = _points(grid, taken, raised, alone)
        moved = moves(points, t, s)
        noising = _noising(points, before, t, alone, churn_noise)
        trapezium = _trapezium(points, moved, follows, churn_noise)
        return Plan(points, interleave([noising, _euler(moved), trapezium]))

    return linear_sampler(plan, order=2)


def _noisiest(grid: Schedule) -> float:
    log_snr = (grid.parent or grid).log_snr
    return log_snr[np.isfinite(log_snr)][-1]


def _points(grid: Schedule, taken: Moves, raised: np.ndarray, alone: np.ndarray):
    """Return all levels at which the network is called, and the indices in them.

    The indices are those of each move's start, its end, and the level before its start was raised.
    """
    ends = np.where(taken.s >= 0, taken.end.log_snr, raised)
    before = np.where(alone, taken.start.log_snr, raised)
    rising, where = np.unique(-np.concatenate([raised, ends, before]), return_inverse=True)
    t, s, before = np.split(where, 3)
    return grid.at_log_snr(-rising), t, np.where(taken.s >= 0, s, -1), before


def _noising(points: Schedule, before, t, taken: np.ndarray, churn_noise: float) -> Stage:
    """Add noise from level `before` up to level t; the row's prediction is not used."""
    growth, std = np.ones(len(t)), np.zeros(len(t))
    start, end = levels(points, before[taken]), levels(points, t[taken])
    growth[taken] = end.signal / start.signal
    std[taken] = churn_noise * end.signal * _raise_std(start, end)
    after = levels(points, t)
    return Stage(table(before, growth, [0.0, 0.0], std), after.signal, after.noise, taken)


def _raise_std(start: NoiseLevel, end: NoiseLevel) -> np.ndarray:
    """Return the noise to add to x / signal to go up from one level to another."""
    return np.sqrt(np.maximum(np.square(_sigma(end)) - np.square(_sigma(start)), 0.0))


def _euler(moved: Moves) -> Stage:
    """Return the Euler step x_s / signal_s = x / signal + (sigma_s - sigma) eps_hat."""
    x0_weight = moved.end.signal * (1.0 - _sigma(moved.end) / _sigma(moved.start))
    rows = table(moved.t, moved.end.noise / moved.start.noise, [x0_weight, 0.0])
    return Stage(rows, moved.end.signal, moved.end.noise, np.ones(len(moved.t), bool))


def _trapezium(points: Schedule, moved: Moves, follows: np.ndarray, churn_noise: float) -> Stage:
    """Redo the move with the mean of both slopes, then add noise up to the next move's start."""
    taken = (moved.s >= 0) & (moved.start.signal > 0.0)

    def level(t) -> NoiseLevel:  # with placeholders where not taken
        return NoiseLevel(*(np.where(taken, each, 1.0) for each in levels(points, t)))

    start, end = level(moved.t), level(moved.s)
    leads = np.append(follows[1:], False)
    after = level(np.where(leads, np.roll(moved.t, -1), moved.s))
    half = 0.5 * (_sigma(end) - _sigma(start))
    rows = table(
        moved.s,
        after.signal * half / end.noise,
        [-after.signal * half / _sigma(end), -after.signal * half / _sigma(start)],
        after.signal * churn_noise * _raise_std(end, after),
        after.signal * (1.0 / start.signal + half / start.noise),
    )
    return Stage(rows, after.signal, after.noise, taken)


def _sigma(level: NoiseLevel) -> np.ndarray:
    """Return noise / signal, the noise on an unscaled signal; infinite for pure noise."""
    infinite = np.full_like(level.noise, np.inf)
    return np.divide(level.noise, level.signal, out=infinite, where=level.signal > 0.0)
