"""The variational bound on -log p(x0), every term per image and per step, in nats.

bound = prior + sum over t >= 1 of diffusion + reconstruction (Ho et al. 2020, eq. 5; steps here
are 0-based, so the reconstruction is the term of t = 0).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffusion_jax.core import gaussian
from diffusion_jax.core.arrays import at, sum_event
from diffusion_jax.core.keys import fold, image_normal
from diffusion_jax.core.predictions import Denoise
from diffusion_jax.core.process import VARIANCES, q_marginal, q_sample
from diffusion_jax.core.schedules import Schedule, single_steps


def prior_nats(schedule: Schedule, x0: jax.Array) -> jax.Array:
    """KL(q(x_T | x0) || N(0, I)) per image: the cost of stopping the noising at step T.

    Args:
        x0: `[b, h, w, c]`.

    Returns:
        `[b]`.
    """
    last = jnp.full(x0.shape[:1], schedule.steps - 1)
    mean, var = q_marginal(schedule, x0, last)
    return sum_event(gaussian.kl(mean, jnp.log(var), 0.0, 0.0), last)


def diffusion_nats(schedule: Schedule, variance: str, x0, x0_hat, t) -> jax.Array:
    """KL(q(x_{t-1} | x_t, x0) || p(x_{t-1} | x_t)) per image, for t >= 1, through the error of x0.

    KL = D (exp(-r) - 1 + r)/2 + x0_weight^2 |x0 - x0_hat|^2 / (2 model_var), where r is the log of
    the model's over the posterior's variance; both coefficients are made in float64.
    """
    row = single_steps(schedule)
    model_var = VARIANCES[variance](row)
    # At t = 0 the posterior is a point and its term the reconstruction: ratio one stays finite.
    ratio = np.log(model_var / np.where(row.s < 0, model_var, row.posterior_var))
    constant = 0.5 * (np.expm1(-ratio) + ratio)
    weight = 0.5 * np.square(row.x0_weight) / model_var
    error = jnp.square(x0 - x0_hat)
    return sum_event(at(constant, t, error) + at(weight, t, error) * error, t)


def reconstruction_nats(schedule: Schedule, x0, x0_hat, t, levels: int) -> jax.Array:
    """-log p(x0 | x_1) per image under the decoder, integrated over the bin of each level.

    The decoder is N(x0_hat, noise_0^2 I), noise_0^2 = 1 - alpha_bar of the first step
    (Ho et al. 2020, eq. 13).

    Args:
        x0: images in [-1, 1] on the grid of the data's levels.
        levels: how many levels the data has.
    """
    level = jnp.round((x0 + 1.0) * 0.5 * (levels - 1))
    log_var = 2.0 * float(np.log(schedule.noise[0]))
    return -sum_event(gaussian.discretised_log_likelihood(level, x0_hat, log_var, levels), t)


def term_nats(
    schedule: Schedule, variance: str, denoise: Denoise, levels: int, x0, t, eps
) -> jax.Array:
    """One term of the bound per image at its step t: reconstruction at t = 0, diffusion above.

    Args:
        x0, eps: `[b, h, w, c]`; `eps` is the noise that makes x_t.
        t: int32 `[b]`.
    """
    x0_hat = denoise(q_sample(schedule, x0, t, eps), t).x0
    first = reconstruction_nats(schedule, x0, x0_hat, t, levels)
    return jnp.where(t == 0, first, diffusion_nats(schedule, variance, x0, x0_hat, t))


class Bound(NamedTuple):
    """The terms in nats per image: `prior` `[b]`, `terms` `[T, b]`, row 0 the reconstruction."""

    prior: jax.Array
    terms: jax.Array

    @property
    def total(self) -> jax.Array:
        """The bound on -log p(x0) per image, `[b]`."""
        return self.prior + jnp.sum(self.terms, axis=0)


def bound_nats(
    schedule: Schedule, variance: str, denoise: Denoise, levels: int, keys: jax.Array, x0
) -> Bound:
    """Every term of the bound, one draw of x_t per image and step, in one scan over t.

    Args:
        keys: one key per image `[b]`.
        x0: `[b, h, w, c]`.
    """

    def term(_, t):
        eps = image_normal(fold(keys, t), x0.shape[1:])
        at_t = jnp.full(x0.shape[:1], t)
        return None, term_nats(schedule, variance, denoise, levels, x0, at_t, eps)

    _, terms = jax.lax.scan(term, None, jnp.arange(schedule.steps))
    return Bound(prior_nats(schedule, x0), terms)
