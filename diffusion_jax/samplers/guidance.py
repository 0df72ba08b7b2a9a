"""Guidance by class, wrapped around the network, or by a function of x0, around the denoiser."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from diffusion_jax.core.arrays import lookup
from diffusion_jax.core.predictions import Denoise, Denoised, Network, split_output
from diffusion_jax.core.schedules import Schedule


def classifier_free(
    network: Callable[[jax.Array, jax.Array, jax.Array], jax.Array],
    label: jax.Array,
    no_label: int,
    scale: float,
    interval: tuple[float, float],
) -> Network:
    """Move the output away from the unconditional one; one network call computes both.

    y = y_none + scale (y_class - y_none): 1 is the plain conditional model, 0 the unconditional
    one (Ho & Salimans 2022, eq. 6, where scale = 1 + w). Both share x_t, so the result is the same
    in terms of x0, eps, v or score. Learned variances are those of the conditional output.

    Args:
        network: `(x, time, label) -> output`.
        label: int32 `[b]`.
        no_label: the label that means "no class".
        scale: guidance scale.
        interval: the range of times with guidance; elsewhere the scale is 1 (Kynkaanniemi et al.
            2024).
    """

    def guided(x: jax.Array, time: jax.Array) -> jax.Array:
        labels = jnp.stack([label, jnp.full_like(label, no_label)], axis=1).ravel()
        # Interleaved, so that both copies of an image are on the same device.
        output = network(jnp.repeat(x, 2, axis=0), jnp.repeat(time, 2), labels)
        output = output.reshape(len(x), 2, *output.shape[1:])
        conditional, rest = split_output(output[:, 0], x)
        unconditional, _ = split_output(output[:, 1], x)
        low, high = interval
        strength = jnp.where((time >= low) & (time <= high), scale, 1.0)
        strength = strength.reshape(-1, *[1] * (x.ndim - 1))
        steered = unconditional + strength * (conditional - unconditional)
        return steered if rest is None else jnp.concatenate([steered, rest], axis=-1)

    return guided


def gradient_guided(
    denoise: Denoise,
    grid: Schedule,
    log_likelihood: Callable[[jax.Array], jax.Array],
    scale: float = 1.0,
) -> Denoise:
    """Follow the gradient of any function of the predicted clean image.

    eps = eps_hat - scale noise grad_{x_t} log_likelihood(x0_hat(x_t)), and x0 follows from eps
    (Dhariwal & Nichol 2021, algorithm 2; through the denoiser as in Chung et al. 2023, eq. 16). It
    is exact for Gaussian data and a log-likelihood linear in x0, otherwise an approximation. Pure
    noise is not guided, because it does not determine x0.

    Args:
        denoise: a denoiser whose t indexes `grid`.
        log_likelihood: `[b, h, w, c] -> [b]`, in nats, such as a classifier's or a measurement's.
    """

    def guided(x: jax.Array, t: jax.Array) -> Denoised:
        def total(x):
            denoised = denoise(x, t)
            return jnp.sum(log_likelihood(denoised.x0)), denoised

        gradient, denoised = jax.grad(total, has_aux=True)(x)
        noise, signal = lookup(grid.noise, t, x), lookup(grid.signal, t, x)
        eps = denoised.eps - scale * noise * gradient
        if np.all(grid.signal > 0.0):
            return denoised._replace(x0=(x - noise * eps) / signal, eps=eps)
        x0 = (x - noise * eps) / jnp.where(signal > 0.0, signal, 1.0)
        return denoised._replace(
            x0=jnp.where(signal > 0.0, x0, denoised.x0),
            eps=jnp.where(signal > 0.0, eps, denoised.eps),
        )

    return guided
