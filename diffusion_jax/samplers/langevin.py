"""Langevin dynamics at one noise level, down a ladder of levels, and as ancestral's corrector.

x += delta/2 score(x) + sqrt(delta) eps, score = -eps_hat / noise (Welling & Teh 2011): for small
delta its stationary law is q(x_t); on N(0, v) its variance is v / (1 - delta / (4 v)).
"""

import numpy as np

from diffusion_jax.core.moves import Moves
from diffusion_jax.core.schedules import Schedule
from diffusion_jax.samplers.ancestral import ancestral_table, single_stage
from diffusion_jax.samplers.base import Plan, Sampler, Stage, interleave
from diffusion_jax.samplers.linear import linear_sampler, table


def _diffuse(moves: Moves, rate: float, rescale) -> Stage:
    """One Langevin step at the start of each move, delta = rate noise^2, then x times `rescale`."""
    signal, noise = moves.start.signal, moves.start.noise
    rows = table(
        moves.t,
        rescale * (1.0 - 0.5 * rate),
        [rescale * 0.5 * rate * signal],
        rescale * np.sqrt(rate) * noise,
    )
    return Stage(rows, rescale * signal, rescale * noise, np.ones(len(moves.t), bool))


def langevin(langevin_steps: int, langevin_rate: float) -> Sampler:
    """Annealed Langevin dynamics: steps at each level of the grid, then the next level.

    delta = langevin_rate noise^2, as in Song & Ermon 2019, algorithm 1; x is rescaled where the
    signal changes, and the last call takes the remaining noise away.

    Args:
        langevin_steps: at each level.
        langevin_rate: of 0 .. 4, where the dynamics of the noisiest level is stable.
    """
    _check(langevin_steps, langevin_rate)

    def plan(grid: Schedule, moves: Moves) -> Plan:
        onward = np.where(moves.s < 0, 1.0, moves.end.signal / moves.start.signal)
        stages = [_diffuse(moves, langevin_rate, 1.0)] * (langevin_steps - 1)
        stages.append(_diffuse(moves, langevin_rate, onward))
        clean = single_stage(moves, table(moves.t, 0.0, [1.0]))
        return Plan(grid, interleave([*stages, clean._replace(taken=moves.s < 0)]))

    return linear_sampler(plan)


def predictor_corrector(variance: str, langevin_steps: int, langevin_rate: float) -> Sampler:
    """Ancestral sampling, before each move of which Langevin dynamics corrects x_t.

    delta = langevin_rate noise^2 is what a signal-to-noise ratio r = sqrt(rate)/2 gives on average
    (Song et al. 2021, algorithms 3 and 5), without a norm over the batch.
    """
    _check(langevin_steps, langevin_rate)

    def plan(grid: Schedule, moves: Moves) -> Plan:
        corrections = [_diffuse(moves, langevin_rate, 1.0)] * langevin_steps
        prediction = single_stage(moves, ancestral_table(moves, variance))
        return Plan(grid, interleave([*corrections, prediction]))

    return linear_sampler(plan)


def _check(steps: int, rate: float) -> None:
    if steps < 1:
        raise ValueError(f"langevin_steps must be at least 1, got {steps}")
    if not 0.0 < rate < 4.0:
        raise ValueError(f"langevin_rate must lie between 0 and 4, got {rate:g}")
