"""Monte Carlo estimates of the likelihood, from whole trajectories instead of single terms.

In expectation, `trajectory_nats` is an upper bound on -log p(x0), and `importance_weighted_nats` is
a tighter one from K trajectories. `naive_log_likelihoods` gives an unbiased estimate of p(x0).
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp

from diffusion_jax.core.arrays import sum_event
from diffusion_jax.core.bound import reconstruction_nats
from diffusion_jax.core.keys import fold, image_normal
from diffusion_jax.core.predictions import Denoise
from diffusion_jax.core.process import ReverseProcess, q_posterior, q_sample


def trajectory_nats(
    reverse: ReverseProcess, denoise: Denoise, levels: int | None, keys: jax.Array, x0: jax.Array
) -> jax.Array:
    """Compute log q(x_{1:T} | x0) - log p(x_{0:T}) for one draw x_{1:T} ~ q(. | x0) per image.

    Its mean is the bound (Sohl-Dickstein et al. 2015, eq. 10; Ho et al. 2020, eq. 3), and the mean
    of exp(-nats) is p(x0). The trajectory is drawn backwards, from the posteriors of q, so that
    every step adds the difference of two similar log-densities.

    Args:
        levels: number of levels of the data, None for a continuous decoder.
        keys: one key per image `[b]`.
        x0: `[b, h, w, c]`.

    Returns:
        `[b]`.
    """
    schedule = reverse.schedule

    def normal(t):
        return image_normal(fold(keys, t), x0.shape[1:])

    def step(carry, t):
        x, nats = carry
        every = jnp.full(x0.shape[:1], t)
        eps = normal(t)
        q, p = q_posterior(schedule, x0, x, every), reverse.gaussian(denoise(x, every), x, every)
        previous = q.mean + jnp.sqrt(q.var) * eps
        # log q - log p, where (previous - q.mean)^2 / q.var = eps^2
        log_ratio = jnp.log(p.var) - jnp.log(q.var) - jnp.square(eps)
        log_ratio = 0.5 * (log_ratio + jnp.square(previous - p.mean) / p.var)
        return (previous, nats + sum_event(log_ratio, every)), None

    last = jnp.full(x0.shape[:1], schedule.steps - 1)
    eps = normal(schedule.steps)
    x = q_sample(schedule, x0, last, eps)
    log_ratio = np.log(schedule.scale[-1] / schedule.noise[-1])
    unit = x / schedule.scale[-1]
    start = sum_event(0.5 * (jnp.square(unit) - jnp.square(eps)) + log_ratio, last)
    (x, nats), _ = jax.lax.scan(step, (x, start), jnp.arange(1, schedule.steps), reverse=True)
    first = jnp.zeros_like(last)
    return nats + reconstruction_nats(reverse, denoise(x, first), x0, first, levels)


def importance_weighted_nats(log_weights_nats: jax.Array) -> jax.Array:
    """Compute -log of the mean weight of K trajectories: at most the mean of their K bounds.

    -log (1/K sum_k exp(-nats_k)): a bound in expectation for every K, which tightens as K grows
    (Burda et al. 2015, eq. 8 and theorem 1).

    Args:
        log_weights_nats: `[K, ...]`, independent draws of `trajectory_nats`.
    """
    count = log_weights_nats.shape[0]
    return jnp.log(count) - logsumexp(-log_weights_nats, axis=0)


def naive_log_likelihoods(
    reverse: ReverseProcess,
    denoise: Denoise,
    levels: int | None,
    keys: jax.Array,
    x0: jax.Array,
) -> jax.Array:
    """Draw one chain per key from the model, and compute log p(x0 | x_1) of a given x0 at its end.

    Its exponential is an unbiased estimate of p(x0). But hardly any chain comes near a given x0,
    so the variance is far too large except for toy problems.

    Args:
        keys: one per chain `[n]`.
        x0: one image or vector, `[...]`.

    Returns:
        `[n]`.
    """
    schedule, count = reverse.schedule, len(keys)

    def step(x, t):
        every = jnp.full(count, t)
        p = reverse.gaussian(denoise(x, every), x, every)
        return p.mean + jnp.sqrt(p.var) * image_normal(fold(keys, t), x0.shape), None

    x = schedule.scale[-1] * image_normal(fold(keys, schedule.steps), x0.shape)
    x, _ = jax.lax.scan(step, x, jnp.arange(1, schedule.steps), reverse=True)
    first = jnp.zeros(count, jnp.int32)
    target = jnp.broadcast_to(x0, x.shape)
    return -reconstruction_nats(reverse, denoise(x, first), target, first, levels)


def log_mean_exp(log_values: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Compute log(mean(exp(values))) over the first axis, and the mean's relative standard error.

    The error is itself an estimate: it is too small where a few values dominate the mean.
    """
    count = log_values.shape[0]
    log_mean = logsumexp(log_values, axis=0) - jnp.log(count)
    relative = jnp.std(jnp.exp(log_values - log_mean), axis=0, ddof=1)
    return log_mean, relative / jnp.sqrt(count)
