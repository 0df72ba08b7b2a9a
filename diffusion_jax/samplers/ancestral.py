"""Ancestral sampling and DDIM: one row, and so one network call, per move."""

from collections.abc import Callable

import numpy as np

from diffusion_jax.core.moves import Moves
from diffusion_jax.core.process import VARIANCES, LogVariance
from diffusion_jax.core.schedules import Schedule
from diffusion_jax.core.tables import entry
from diffusion_jax.samplers.base import Plan, Sampler, Stage, interleave
from diffusion_jax.samplers.linear import Table, linear_sampler, table

Variance = str | Callable[[Moves], LogVariance]


def single_stage(moves: Moves, rows: Table) -> Stage:
    """Return the stage with one row per move, which takes x from the move's start to its end."""
    return Stage(rows, moves.end.signal, moves.end.noise, np.ones(len(moves.t), bool))


def ancestral_table(moves: Moves, variance: Variance) -> Table:
    """Compute the table of x_s = x0_weight x0_hat + xt_weight x_t + sqrt(variance) eps.

    The move onto the data adds no noise.
    """
    log_var = entry(VARIANCES, variance)(moves)
    std = np.where(moves.s < 0, 0.0, np.exp(0.5 * log_var.offset))
    return table(moves.t, moves.xt_weight, [moves.x0_weight], std, span=log_var.span)


def ancestral(variance: Variance) -> Sampler:
    """Draw x_s from the model's Gaussian p(x_s | x_t) (Ho et al. 2020, algorithm 2).

    The variance, learned or fixed, is recomputed in float64 for the moves of the grid.

    Args:
        variance: a name in `VARIANCES`, or a function like its entries.
    """

    def plan(grid: Schedule, moves: Moves) -> Plan:
        return Plan(grid, interleave([single_stage(moves, ancestral_table(moves, variance))]))

    return linear_sampler(plan)


def ddim(eta: float = 0.0) -> Sampler:
    """Build the DDIM sampler (Song et al. 2020, eq. 12).

    x_s = signal_s x0_hat + sqrt(noise_s^2 - std^2) eps_hat + std eps, where
    std = eta sqrt(posterior_var).

    With eta = 1 it is ancestral sampling with the small variance. With eta = 0 it is Euler's method
    for the probability-flow ODE in x / signal, and moves towards noise invert it.

    Args:
        eta: share of the ancestral noise, 0 (none) to 1.

    Raises:
        ValueError: eta lies outside [0, 1].
    """
    if not 0.0 <= eta <= 1.0:
        raise ValueError(f"eta must lie between 0 and 1, got {eta:g}")

    def plan(grid: Schedule, moves: Moves) -> Plan:
        std = eta * np.sqrt(np.maximum(moves.posterior_var, 0.0))
        eps_weight = np.sqrt(np.square(moves.end.noise) - np.square(std))
        xt_weight = eps_weight / moves.start.noise  # eps_hat = (x_t - signal_t x0_hat) / noise_t
        x0_weight = moves.end.signal - xt_weight * moves.start.signal
        rows = table(moves.t, xt_weight, [x0_weight], std)
        return Plan(grid, interleave([single_stage(moves, rows)]))

    return linear_sampler(plan)
