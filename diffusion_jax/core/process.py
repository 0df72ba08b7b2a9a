"""The forward process, its posterior, and the model's reverse step."""

from typing import NamedTuple

import jax
import numpy as np

from diffusion_jax.core.arrays import at
from diffusion_jax.core.predictions import Denoise
from diffusion_jax.core.schedules import Moves, Schedule, single_steps


class Gaussian(NamedTuple):
    """A diagonal Gaussian: `mean` shaped like the image, `var` broadcastable with it."""

    mean: jax.Array
    var: jax.Array


def q_sample(schedule: Schedule, x0: jax.Array, t: jax.Array, eps: jax.Array) -> jax.Array:
    """Noise clean images to step t: x_t = signal x0 + noise eps (Ho et al. 2020, eq. 4).

    Args:
        x0, eps: images and standard normal noise, `[*t.shape, ...]`.
        t: int32, 0-based, any leading shape.
    """
    return at(schedule.signal, t, x0) * x0 + at(schedule.noise, t, x0) * eps


def q_marginal(schedule: Schedule, x0: jax.Array, t: jax.Array) -> Gaussian:
    """q(x_t | x0) = N(signal x0, noise^2 I) (Ho et al. 2020, eq. 4)."""
    return Gaussian(at(schedule.signal, t, x0) * x0, at(np.square(schedule.noise), t, x0))


def q_step(schedule: Schedule, previous: jax.Array, t: jax.Array) -> Gaussian:
    """q(x_t | x_{t-1}) = N(sqrt(alpha_t) x_{t-1}, beta_t I) (Ho et al. 2020, eq. 2)."""
    scale = schedule.signal / np.append(1.0, schedule.signal[:-1])
    forward_var = single_steps(schedule).forward_var
    return Gaussian(at(scale, t, previous) * previous, at(forward_var, t, previous))


def q_posterior(schedule: Schedule, x0: jax.Array, xt: jax.Array, t: jax.Array) -> Gaussian:
    """q(x_{t-1} | x_t, x0), a point mass on x0 at t = 0 (Ho et al. 2020, eqs. 6 and 7)."""
    row = single_steps(schedule)
    mean = at(row.x0_weight, t, xt) * x0 + at(row.xt_weight, t, xt) * xt
    return Gaussian(mean, at(row.posterior_var, t, xt))


def _with_decoder(var: np.ndarray, row: Moves) -> np.ndarray:
    """The step onto the data is the decoder, whose own variance is that of the first noise."""
    return np.where(row.s < 0, row.forward_var, var)


def fixed_small(row: Moves) -> np.ndarray:
    """The posterior's variance: optimal if the data were a point (Ho et al. 2020, section 3.2)."""
    return _with_decoder(row.posterior_var, row)


def fixed_large(row: Moves) -> np.ndarray:
    """The forward variance beta: optimal if the data were N(0, I) (Ho et al. 2020, section 3.2)."""
    return row.forward_var


VARIANCES = {"fixed_small": fixed_small, "fixed_large": fixed_large}


def p_mean_variance(
    schedule: Schedule, denoise: Denoise, variance: str, xt: jax.Array, t: jax.Array
) -> Gaussian:
    """The model's reverse step p(x_{t-1} | x_t): the posterior's mean at the predicted x0.

    Whether x0 is clipped is the denoiser's setting (Ho et al. 2020, eqs. 1 and 11).
    """
    mean, _ = q_posterior(schedule, denoise(xt, t).x0, xt, t)
    return Gaussian(mean, at(VARIANCES[variance](single_steps(schedule)), t, xt))
