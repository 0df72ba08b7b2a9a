"""The probability-flow ODE: a density for continuous data from the same denoiser.

With l = log-SNR and drift = d log(signal)/dl, which is noise^2/2 on a variance-preserving path,

dx/dl = drift x - noise eps(x, l) / 2,   d log p / dl = -div(dx/dl)

(Song et al. 2021, eq. 13, written in l).
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from diffusion_jax.core import gaussian
from diffusion_jax.core.arrays import lookup, sum_event
from diffusion_jax.core.predictions import Denoise
from diffusion_jax.core.schedules import Schedule

Field = Callable[[jax.Array], jax.Array]
Divergence = Callable[[Field, jax.Array], tuple[jax.Array, jax.Array]]


def exact_divergence(field: Field, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Compute the field and its exact divergence per image with D derivatives, for small D.

    Args:
        field: `[b, ...] -> [b, ...]`; each image's value depends on that image alone.
        x: `[b, ...]`.

    Returns:
        field(x), and the trace of its Jacobian, `[1, b]`.
    """
    value, push = jax.linearize(field, x)
    size = x[0].size

    def add(total, i):
        direction = jnp.broadcast_to(jax.nn.one_hot(i, size, dtype=x.dtype), (len(x), size))
        return total + push(direction.reshape(x.shape)).reshape(len(x), size)[:, i], None

    return value, jax.lax.scan(add, jnp.zeros(len(x), x.dtype), jnp.arange(size))[0][None]


def hutchinson(probes: jax.Array) -> Divergence:
    """Estimate the trace of the Jacobian by v^T J v, which is unbiased for each probe v.

    (Hutchinson 1990; FFJORD, Grathwohl et al. 2018, eq. 7.) The same probes are used along a whole
    trajectory; the spread of the estimates over probes gives the error bar.

    Args:
        probes: `[p, b, ...]`, entries of mean 0 and variance 1, such as `rademacher_probes`.
    """

    def divergence(field: Field, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        value, push = jax.linearize(field, x)
        image, typed = jnp.zeros(len(x), jnp.int32), probes.astype(x.dtype)
        traces = jax.lax.map(lambda probe: sum_event(probe * push(probe), image), typed)
        return value, traces

    return divergence


def rademacher_probes(keys: jax.Array, count: int, shape: tuple[int, ...]) -> jax.Array:
    """Draw random signs `[count, b, *shape]`, image i's from `keys[i]` alone."""
    draw = jax.vmap(lambda key: jax.random.rademacher(key, (count, *shape), jnp.float32))
    return jnp.swapaxes(draw(keys), 0, 1)


def flow_nats(grid: Schedule, denoise: Denoise, divergence: Divergence, x: jax.Array) -> jax.Array:
    """Compute -log p(x) in nats at the grid's first level, by Heun's method along the grid.

    The error falls with the square of the grid's spacing in log-SNR. A last step to pure noise,
    where l is infinite, is taken in the angle phi = arctan(noise / signal):
    dx/dphi = signal eps - noise x0 (Salimans & Ho 2022, appendix D).

    Args:
        grid: noise levels from the data's end to the prior's, see `schedules.uniform_log_snr`.
        denoise: `(x, row of the grid) -> Denoised`.
        divergence: `exact_divergence` or `hutchinson(probes)`.
        x: `[b, ...]`, the points at which to evaluate the density.

    Returns:
        `[p, b]`: one row per probe, or a single row for the exact divergence.
    """

    def slope(x, row):
        def field(x):
            t = jnp.full(x.shape[:1], row)
            drift = lookup(grid.path.drift(grid.log_snr), t, x)
            return drift * x - 0.5 * lookup(grid.noise, t, x) * denoise(x, t).eps

        return divergence(field, x)

    def angular_slope(x, row):
        def field(x):
            t = jnp.full(x.shape[:1], row)
            denoised = denoise(x, t)
            return lookup(grid.signal, t, x) * denoised.eps - lookup(grid.noise, t, x) * denoised.x0

        return divergence(field, x)

    def heun(slope, carry, row, width):
        x, log_det = carry
        here, here_trace = slope(x, row)
        there, there_trace = slope(x + width * here, row + 1)
        x = x + 0.5 * width * (here + there)
        return x, log_det + 0.5 * width * (here_trace + there_trace)

    finite = grid.log_snr[np.isfinite(grid.log_snr)]

    def step(carry, row):
        width = jnp.asarray(np.diff(finite), x.dtype)[row]
        return heun(slope, carry, row, width), None

    begin = jnp.zeros((jax.eval_shape(lambda: slope(x, 0)[1]).shape), x.dtype)
    carry, _ = jax.lax.scan(step, (x, begin), jnp.arange(len(finite) - 1))
    if len(finite) < grid.steps:
        row = grid.steps - 2
        carry = heun(angular_slope, carry, row, np.arctan2(grid.signal[row], grid.noise[row]))
    x, log_det = carry
    prior_log_var = jnp.full_like(x, 2.0 * np.log(grid.scale[-1]))
    log_density = gaussian.log_density(x, jnp.zeros_like(x), prior_log_var)
    end = -sum_event(log_density, jnp.zeros(len(x), jnp.int32))
    return end - log_det


def dequantise(level: jax.Array, uniform: jax.Array, levels: int) -> jax.Array:
    """Spread integer levels evenly over their bins: x = 2 (level + u - 1/2) / (levels - 1) - 1.

    For a density p of x, by Jensen's inequality, -log P(level) <= E_u[-log p(x)] - `log_bin_nats`
    (Theis et al. 2016).

    Args:
        level: `[b, ...]`, in 0 .. levels - 1.
        uniform: in [0, 1), of the same shape.
    """
    return 2.0 * (level + uniform - 0.5) / (levels - 1) - 1.0


def log_bin_nats(levels: int, dims: int) -> float:
    """Compute the log-volume of one bin: dims log(2 / (levels - 1))."""
    return dims * math.log(2.0 / (levels - 1))
