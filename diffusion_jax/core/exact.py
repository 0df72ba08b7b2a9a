"""Ground truth: data whose optimal denoiser is known in closed form."""

import jax

from diffusion_jax.core.arrays import at
from diffusion_jax.core.predictions import Denoise, Denoised
from diffusion_jax.core.schedules import Schedule


def gaussian_denoiser(schedule: Schedule, mean: jax.Array, var: jax.Array) -> Denoise:
    """The optimal denoiser E[x0 | x_t], E[eps | x_t] of data N(mean, var) with diagonal variance.

    E[x0 | x_t] = mean + signal var / (signal^2 var + noise^2) (x_t - signal mean)
    """

    def denoise(x: jax.Array, t: jax.Array) -> Denoised:
        signal, noise = at(schedule.signal, t, x), at(schedule.noise, t, x)
        rest = (x - signal * mean) / (signal**2 * var + noise**2)
        return Denoised(mean + signal * var * rest, noise * rest)

    return denoise
