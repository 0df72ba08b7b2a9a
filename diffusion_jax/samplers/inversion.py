"""Encode images to noise and decode them by DDIM; interpolate between images or noises."""

import jax
import jax.numpy as jnp
import numpy as np

from diffusion_jax.core.arrays import expand
from diffusion_jax.core.moves import descent, moves
from diffusion_jax.core.schedules import Schedule
from diffusion_jax.samplers.ancestral import ddim
from diffusion_jax.samplers.sample import DenoiseOn, scan_rows, start


def encode(denoise_on: DenoiseOn, grid: Schedule, x0: jax.Array) -> jax.Array:
    """Encode images as the noise x_T from which DDIM with eta = 0 generates them.

    The moves of DDIM are taken backwards: x_s = signal_s x0_hat + noise_s eps_hat for s > t (Song
    et al. 2020, eq. 13). The first move, from the data to the grid's first level, uses the noise
    that the network predicts at that level.

    Args:
        denoise_on: `(levels) -> denoise`, without clipping, which would lose information.
        grid: the finer it is, the more closely `decode` reproduces the images.
        x0: `[b, h, w, c]`.
    """
    denoise = denoise_on(grid)
    eps = denoise(grid.signal[0] * x0, jnp.zeros(len(x0), jnp.int32)).eps
    x = grid.signal[0] * x0 + grid.noise[0] * eps
    rise = np.arange(grid.steps - 1)
    return _follow(denoise_on, grid, moves(grid, rise, rise + 1), x)


def decode(denoise_on: DenoiseOn, grid: Schedule, noise: jax.Array) -> jax.Array:
    """Decode noises x_T to images `[b, h, w, c]` by DDIM with eta = 0."""
    return _follow(denoise_on, grid, descent(grid), noise)


def _follow(denoise_on: DenoiseOn, grid: Schedule, way, x: jax.Array) -> jax.Array:
    sampler = ddim(eta=0.0)
    plan = sampler.plan(grid, way)
    no_keys = jax.random.split(jax.random.key(0), len(x))  # eta = 0 multiplies their noise by 0
    return scan_rows(sampler, denoise_on(plan.points), no_keys, start(sampler, x), plan.rows).x


def slerp(a: jax.Array, b: jax.Array, weight: jax.Array) -> jax.Array:
    """Interpolate along the sphere: (sin((1-w) angle) a + sin(w angle) b) / sin(angle).

    Between two independent normal draws it keeps their typical length (Song et al. 2020, app. D.5).

    Args:
        a, b: `[b, h, w, c]`.
        weight: `[b]`, 0 at a, 1 at b.
    """
    axes = tuple(range(1, a.ndim))
    lengths = jnp.sqrt(jnp.sum(a * a, axes) * jnp.sum(b * b, axes))
    angle = jnp.arccos(jnp.clip(jnp.sum(a * b, axes) / lengths, -1.0, 1.0))
    sine = jnp.sin(angle)
    near = sine < 1e-6  # parallel: the straight line
    safe = jnp.where(near, 1.0, sine)
    first = jnp.where(near, 1.0 - weight, jnp.sin((1.0 - weight) * angle) / safe)
    second = jnp.where(near, weight, jnp.sin(weight * angle) / safe)
    return expand(first, a) * a + expand(second, a) * b


def interpolate(
    denoise_on: DenoiseOn, grid: Schedule, a: jax.Array, b: jax.Array, weight: jax.Array
) -> jax.Array:
    """Interpolate two images: encode both, `slerp`, decode (Song et al. 2020, figure 6).

    Arguments as in `slerp` and `encode`.
    """
    noise_a, noise_b = (encode(denoise_on, grid, x) for x in (a, b))
    return decode(denoise_on, grid, slerp(noise_a, noise_b, weight))
