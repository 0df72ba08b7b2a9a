"""The variational bound on -log p(x0): every term, per image and per step, in nats.

bound = prior + sum over t >= 1 of diffusion + reconstruction (Ho et al. 2020, eq. 5; steps here
are 0-based, so the reconstruction is the term of t = 0).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffusion_jax.core import gaussian
from diffusion_jax.core.arrays import expand, lookup, mean_event, sum_event
from diffusion_jax.core.keys import fold, image_normal, image_uniform
from diffusion_jax.core.predictions import Denoise, Denoised
from diffusion_jax.core.process import ReverseProcess, q_marginal, q_posterior, q_sample
from diffusion_jax.core.schedules import Schedule


def prior_nats(schedule: Schedule, x0: jax.Array) -> jax.Array:
    """Compute KL(q(x_T | x0) || N(0, scale_T^2 I)) per image: the cost of stopping at step T.

    scale_T is 1 where variance is preserved (Ho et al. 2020, eq. 5).

    Args:
        x0: `[b, h, w, c]`.

    Returns:
        `[b]`.
    """
    last = jnp.full(x0.shape[:1], schedule.steps - 1)
    mean, var = q_marginal(schedule, x0, last)
    prior_log_var = 2.0 * np.log(schedule.scale[-1])
    return sum_event(gaussian.kl(mean, jnp.log(var), 0.0, prior_log_var), last)


def _x0_error(reverse: ReverseProcess, denoised: Denoised, x0, eps, t) -> jax.Array:
    """Compute x0_weight^2 |x0 - x0_hat|^2 (Kingma et al. 2021, eq. 13).

    Where the SNR is tiny, so is the weight, and the error is huge: the weight's power of two is
    multiplied before squaring, which rounds nothing.
    """
    mantissa, exponent = np.frexp(reverse.moves.x0_weight)
    error = lookup(np.exp2(exponent), t, x0) * (x0 - denoised.x0)
    return lookup(np.square(mantissa), t, x0) * jnp.square(error)


def _eps_error(reverse: ReverseProcess, denoised: Denoised, x0, eps, t) -> jax.Array:
    """Compute (x0_weight noise / signal)^2 |eps - eps_hat|^2 (Ho et al. 2020, eq. 12)."""
    if not np.all(reverse.schedule.signal > 0.0):
        raise ValueError("pure noise has no error of eps; compute the distance through 'x0'")
    weight = reverse.moves.x0_weight * reverse.schedule.noise / reverse.schedule.signal
    return lookup(np.square(weight), t, x0) * jnp.square(eps - denoised.eps)


def _mean_error(reverse: ReverseProcess, denoised: Denoised, x0, eps, t) -> jax.Array:
    """Compute |mu~ - mu|^2 (Ho et al. 2020, eq. 8)."""
    schedule = reverse.schedule
    xt = q_sample(schedule, x0, t, eps)
    ours = q_posterior(schedule, denoised.x0, xt, t).mean
    return jnp.square(q_posterior(schedule, x0, xt, t).mean - ours)


# Three ways to compute the squared distance of the means; the x0 error is the most precise.
ERRORS = {"x0": _x0_error, "eps": _eps_error, "mean": _mean_error}


def diffusion_nats(
    reverse: ReverseProcess, denoised: Denoised, x0, eps, t, through: str = "x0"
) -> jax.Array:
    """Compute KL(q(x_{t-1} | x_t, x0) || p(x_{t-1} | x_t)) per image, for t >= 1.

    KL = D (exp(-d) - 1 + d)/2 + |mu~ - mu|^2 / (2 model_var), d = log(model_var / posterior_var).
    The tables behind d are float64, because the textbook form cancels in float32.

    Args:
        denoised: the denoiser's output at x_t = signal x0 + noise eps.
        x0, eps: `[b, h, w, c]`.
        t: int32 `[b]`.
        through: the error from which the distance of the means is computed, a name in `ERRORS`.

    Raises:
        ValueError: `through` is "eps" and the schedule ends in pure noise.
    """
    # At t = 0 the posterior has no variance and this term is not used; 1 keeps the log finite.
    posterior_var = np.where(reverse.moves.s < 0, 1.0, reverse.moves.posterior_var)
    change = reverse.log_var_change(denoised, t, x0)
    distance = ERRORS[through](reverse, denoised, x0, eps, t)
    precision = lookup(np.exp(-reverse.log_var.offset), t, x0) * jnp.exp(-change)
    ratio = lookup(reverse.log_var.offset - np.log(posterior_var), t, x0) + change
    return sum_event(gaussian.kl_of_variances(ratio) + 0.5 * precision * distance, t)


def reconstruction_nats(
    reverse: ReverseProcess, denoised: Denoised, x0, t, levels: int | None
) -> jax.Array:
    """Compute -log p(x0 | x_1) per image under the decoder N(x0_hat, decoder_var), at t = 0.

    Discrete data are scored by the probability of each level's bin (Ho et al. 2020, eq. 13),
    continuous data (`levels` None) by the density.

    Args:
        x0: images in [-1, 1], with values exactly on the levels unless `levels` is None.
        t: zeros, int32 `[b]`.
    """
    log_var = lookup(reverse.log_var.offset, t, x0) + reverse.log_var_change(denoised, t, x0)
    if levels is None:
        return -sum_event(gaussian.log_density(x0, denoised.x0, log_var), t)
    level = jnp.round((x0 + 1.0) * 0.5 * (levels - 1))
    return -sum_event(gaussian.discretised_log_likelihood(level, denoised.x0, log_var, levels), t)


def term_nats(
    reverse: ReverseProcess, denoised: Denoised, x0, eps, t, levels: int | None
) -> jax.Array:
    """Compute one term of the bound per image: reconstruction at t = 0, diffusion at t >= 1.

    Arguments as in `diffusion_nats` and `reconstruction_nats`, t int32 `[b]`.
    """
    # At other steps the decoder's unused gradient may not overflow: 0 * inf would be NaN.
    near = denoised._replace(x0=jnp.where(expand(t == 0, x0), denoised.x0, x0))
    first = reconstruction_nats(reverse, near, x0, jnp.zeros_like(t), levels)
    return jnp.where(t == 0, first, diffusion_nats(reverse, denoised, x0, eps, t))


class Strata(NamedTuple):
    """Runs of consecutive steps, each evaluated at one of its steps: int32 tables `[s]`."""

    start: Any
    size: Any


def strata(steps: int, every: int) -> Strata:
    """Split the steps into t = 0 and runs of `every` steps, the last one perhaps shorter."""
    start = np.concatenate([[0], np.arange(1, steps, every)]).astype(np.int32)
    return Strata(start, np.diff(start, append=steps).astype(np.int32))


class Terms(NamedTuple):
    """Terms of the bound per stratum and image, `[s, b]`.

    nats: estimate of the sum of the terms of all the stratum's steps.
    x0_mse, eps_mse: errors at the one step that was evaluated, averaged over dimensions, for
        images in [-1, 1] and noise of unit variance.
    """

    nats: jax.Array
    x0_mse: jax.Array
    eps_mse: jax.Array


def stratum_terms(
    reverse: ReverseProcess,
    denoise: Denoise,
    levels: int | None,
    keys: jax.Array,
    x0: jax.Array,
    runs: Strata,
) -> Terms:
    """Compute all strata's terms in one scan, with one random step and noise per stratum and image.

    The term of a stratum of n steps is multiplied by n, so that sums over strata are unbiased.

    Args:
        keys: one key per image `[b]`.
        x0: `[b, h, w, c]`.
    """

    def term(_, run: Strata):
        own = fold(keys, run.start)
        eps = image_normal(fold(own, 0), x0.shape[1:])
        offset = (image_uniform(fold(own, 1)) * run.size).astype(jnp.int32)
        t = run.start + jnp.minimum(offset, run.size - 1)
        denoised = denoise(q_sample(reverse.schedule, x0, t, eps), t)
        nats = jax.lax.cond(
            run.start == 0,
            lambda: reconstruction_nats(reverse, denoised, x0, t, levels),
            lambda: run.size * diffusion_nats(reverse, denoised, x0, eps, t),
        )
        x0_mse = mean_event(jnp.square(x0 - denoised.x0), t)
        return None, Terms(nats, x0_mse, mean_event(jnp.square(eps - denoised.eps), t))

    return jax.lax.scan(term, None, runs)[1]


class Bound(NamedTuple):
    """The bound in nats per image: `prior`, `[b]`, and all other terms; stratum 0 is t = 0."""

    prior: jax.Array
    terms: Terms

    @property
    def reconstruction(self) -> jax.Array:
        """The term of t = 0, `[b]`."""
        return self.terms.nats[0]

    @property
    def diffusion(self) -> jax.Array:
        """The sum of all terms of t >= 1, `[b]`."""
        return jnp.sum(self.terms.nats[1:], axis=0)

    @property
    def total(self) -> jax.Array:
        """The bound on -log p(x0) per image, `[b]`."""
        return self.prior + self.diffusion + self.reconstruction


def bound_nats(
    reverse: ReverseProcess,
    denoise: Denoise,
    levels: int | None,
    keys: jax.Array,
    x0: jax.Array,
    every: int = 1,
) -> Bound:
    """Compute the whole bound, with one draw of x_t per image and stratum of `every` steps.

    Arguments as in `stratum_terms`.
    """
    runs = strata(reverse.schedule.steps, every)
    terms = stratum_terms(reverse, denoise, levels, keys, x0, runs)
    return Bound(prior_nats(reverse.schedule, x0), terms)
