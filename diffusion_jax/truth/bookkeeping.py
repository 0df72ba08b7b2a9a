"""The bound decomposed into entropies and cross-entropies, per image, in nats.

Only cross-entropies depend on the model: E CE(q, p) = E KL(q || p) + E H(q) for every term. The
same identity holds for discrete distributions, whose probabilities lie on the last axis.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffusion_jax.core import gaussian
from diffusion_jax.core.arrays import lookup, sum_event
from diffusion_jax.core.bound import Bound
from diffusion_jax.core.predictions import Denoised
from diffusion_jax.core.process import ReverseProcess, q_marginal, q_posterior, q_sample
from diffusion_jax.core.schedules import Schedule


def _weighted_log(p: jax.Array, q: jax.Array) -> jax.Array:
    """Compute p log q, 0 where p is 0."""
    return jnp.where(p > 0.0, p * jnp.log(jnp.where(p > 0.0, q, 1.0)), 0.0)


def discrete_entropy(p: jax.Array) -> jax.Array:
    """Compute H(p) = -sum p log p."""
    return -jnp.sum(_weighted_log(p, p), axis=-1)


def discrete_cross_entropy(p: jax.Array, q: jax.Array) -> jax.Array:
    """Compute -sum p log q; infinite where p has mass and q has none."""
    return -jnp.sum(_weighted_log(p, q), axis=-1)


def discrete_kl(p: jax.Array, q: jax.Array) -> jax.Array:
    """Compute KL(p || q) = sum p log(p / q); infinite where p has mass and q has none."""
    return jnp.sum(_weighted_log(p, p) - _weighted_log(p, q), axis=-1)


def bernoulli(p: jax.Array) -> jax.Array:
    """Return the probabilities (1 - p, p) of a Bernoulli variable, `[..., 2]`."""
    return jnp.stack([1.0 - p, p], axis=-1)


def diffusion_cross_entropy_nats(
    reverse: ReverseProcess, denoised: Denoised, x0, eps, t
) -> jax.Array:
    """Compute CE(q(x_{t-1} | x_t, x0), p(x_{t-1} | x_t)) per image, for t >= 1, in closed form.

    Arguments as in `bound.diffusion_nats`. At t = 0, q is a point mass, whose cross-entropy is the
    reconstruction term.
    """
    xt = q_sample(reverse.schedule, x0, t, eps)
    q, p = q_posterior(reverse.schedule, x0, xt, t), reverse.gaussian(denoised, xt, t)
    return sum_event(gaussian.cross_entropy(q.mean, jnp.log(q.var), p.mean, jnp.log(p.var)), t)


def posterior_entropy_nats(reverse: ReverseProcess, x0: jax.Array, t: jax.Array) -> jax.Array:
    """Compute H(q(x_{t-1} | x_t, x0)) = D/2 log(2 pi e posterior_var) per image, for t >= 1."""
    log_var = np.log(np.where(reverse.moves.s < 0, 1.0, reverse.moves.posterior_var))
    return sum_event(gaussian.entropy(lookup(log_var, t, x0)) + jnp.zeros_like(x0), t)


class Bookkeeping(NamedTuple):
    """-bound = -divergences + last_entropy - first_entropy - prior_cross_entropy + fit, `[b]`.

    divergences: sum of KL(q(x_{t-1} | x_t, x0) || p) over t >= 1.
    last_entropy, first_entropy: H(q(x_T | x0)), H(q(x_1 | x0)).
    prior_cross_entropy: -E log p(x_T) over q(x_T | x0), where p(x_T) = N(0, scale_T^2 I).
    fit: log p(x0 | x_1) + first_entropy. Setting it to zero, as Sohl-Dickstein et al. 2015 do,
        would assume that the decoder is the reverse of q(x_1 | x0), and drop the reconstruction.
    """

    divergences: jax.Array
    last_entropy: jax.Array
    first_entropy: jax.Array
    prior_cross_entropy: jax.Array
    fit: jax.Array

    @property
    def total(self) -> jax.Array:
        """The bound on -log p(x0), from these parts."""
        entropies = self.last_entropy - self.first_entropy
        return self.divergences - entropies + self.prior_cross_entropy - self.fit


def bookkeeping(schedule: Schedule, x0: jax.Array, bound: Bound) -> Bookkeeping:
    """Decompose a bound (Sohl-Dickstein et al. 2015, eq. 14, plus the term that they drop).

    Args:
        x0: the images `[b, h, w, c]` for which the bound was computed.
    """
    last = jnp.full(x0.shape[:1], schedule.steps - 1)
    mean, var = q_marginal(schedule, x0, last)
    prior = gaussian.cross_entropy(mean, jnp.log(var), 0.0, 2.0 * np.log(schedule.scale[-1]))
    dims = x0[0].size
    first_entropy = dims * gaussian.entropy(jnp.full(len(x0), 2.0 * np.log(schedule.noise[0])))
    return Bookkeeping(
        divergences=bound.diffusion,
        last_entropy=dims * gaussian.entropy(jnp.full(len(x0), 2.0 * np.log(schedule.noise[-1]))),
        first_entropy=first_entropy,
        prior_cross_entropy=sum_event(prior, last),
        fit=first_entropy - bound.reconstruction,
    )
