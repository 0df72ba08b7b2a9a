"""Langevin dynamics: annealed over the noise levels, and as a corrector of ancestral sampling.

x += delta/2 score(x) + sqrt(delta) eps, score = -eps_hat / noise (Welling & Teh 2011). For small
delta its stationary distribution is q(x_t); where q is N(0, v), the stationary variance is
v / (1 - delta / (4 v)).
"""

import numpy as np
from numpy.typing import ArrayLike

from diffusion_jax.core.moves import Moves
from diffusion_jax.core.schedules import Schedule
from diffusion_jax.samplers.ancestral import Variance, ancestral_table, single_stage
from diffusion_jax.samplers.base import Plan, Sampler, Stage, interleave
from diffusion_jax.samplers.linear import linear_sampler, table


def _diffuse(moves: Moves, rate: ArrayLike, rescale: ArrayLike) -> Stage:
    """Return one Langevin step at each move's start, delta = rate noise^2; x is then rescaled."""
    rate, rescale = np.asarray(rate), np.asarray(rescale)
    signal, noise = moves.start.signal, moves.start.noise
    rows = table(
        moves.t,
        rescale * (1.0 - 0.5 * rate),
        [rescale * 0.5 * rate * signal],
        rescale * np.sqrt(rate) * noise,
    )
    return Stage(rows, rescale * signal, rescale * noise, np.ones(len(moves.t), bool))


def langevin(
    langevin_steps: int = 1, langevin_rate: float = 0.1, langevin_denoise: bool = True
) -> Sampler:
    """Run annealed Langevin dynamics: several steps at each level of the grid in turn.

    delta = langevin_rate noise^2, as in Song & Ermon 2019, algorithm 1; x is rescaled where the
    signal changes, unless x is pure noise.

    Args:
        langevin_steps: Langevin steps at each noise level.
        langevin_rate: size of a step over noise^2, between 0 and 4, above which it is unstable.
        langevin_denoise: remove the remaining noise by one more network call, unlike Song & Ermon.
    """
    _check(langevin_steps, langevin_rate)

    def plan(grid: Schedule, moves: Moves) -> Plan:
        onward = np.divide(
            moves.end.signal,
            moves.start.signal,
            out=np.ones(len(moves.t)),
            where=(moves.s >= 0) & (moves.start.signal > 0.0),
        )
        stages = [_diffuse(moves, langevin_rate, 1.0)] * (langevin_steps - 1)
        stages.append(_diffuse(moves, langevin_rate, onward))
        if langevin_denoise:
            clean = single_stage(moves, table(moves.t, 0.0, [1.0]))
            stages.append(clean._replace(taken=moves.s < 0))
        return Plan(grid, interleave(stages))

    return linear_sampler(plan)


def predictor_corrector(
    variance: Variance,
    langevin_steps: int = 1,
    langevin_rate: float = 0.1,
    corrector_data_var: float = 0.0,
) -> Sampler:
    """Correct x_t by Langevin dynamics before each move of ancestral sampling.

    delta = langevin_rate (noise^2 + corrector_data_var signal^2).

    The published step is delta = 4 alpha (r |z| / |score|)^2 with norms over the batch (Song et al.
    2021, algorithms 4 and 5; alpha is 1 where the variance explodes, and nearly 1 elsewhere). For
    data from N(0, v I) its mean is this one with corrector_data_var = v and langevin_rate = 4 r^2.
    The default of 0 is smaller by the factor 1 + v SNR: equal at the noisy end and far smaller near
    the data (2500 times for v = 0.25 at t = 0 of the linear schedule). It is stable for all data. A
    larger one overshoots in directions in which the data vary by less than langevin_rate v / 4.

    Args:
        corrector_data_var: variance of the data for which the corrector's step is the published one
            on average; 0 is a step in proportion to noise^2.
    """
    _check(langevin_steps, langevin_rate)
    if corrector_data_var < 0.0:
        raise ValueError(f"corrector_data_var must not be negative, got {corrector_data_var:g}")

    def plan(grid: Schedule, moves: Moves) -> Plan:
        rate = langevin_rate * (1.0 + corrector_data_var * np.exp(moves.start.log_snr))
        corrections = [_diffuse(moves, rate, 1.0)] * langevin_steps
        prediction = single_stage(moves, ancestral_table(moves, variance))
        return Plan(grid, interleave([*corrections, prediction]))

    return linear_sampler(plan)


def _check(steps: int, rate: float) -> None:
    if steps < 1:
        raise ValueError(f"langevin_steps must be at least 1, got {steps}")
    if not 0.0 < rate < 4.0:
        raise ValueError(f"langevin_rate must lie between 0 and 4, got {rate:g}")
