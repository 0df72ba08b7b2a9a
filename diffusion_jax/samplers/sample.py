"""Run any sampler: one `lax.scan` over its rows.

To add a sampler: write a function that returns a `Sampler` and add its line to `SAMPLERS`. Its
arguments are read from the keys of the same name under `config.sample`, except `variance`, which is
`config.variance`.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffusion_jax.core.keys import fold, image_normal
from diffusion_jax.core.moves import descent
from diffusion_jax.core.predictions import Denoise
from diffusion_jax.core.schedules import Schedule
from diffusion_jax.samplers.ancestral import ancestral, ddim
from diffusion_jax.samplers.base import Rows, Sampler, Stepped
from diffusion_jax.samplers.dpm_solver import dpmpp_2m, dpmpp_3m, dpmpp_sde
from diffusion_jax.samplers.heun import edm, heun
from diffusion_jax.samplers.langevin import langevin, predictor_corrector

SAMPLERS: dict[str, Callable[..., Sampler]] = {
    "ancestral": ancestral,
    "ddim": ddim,
    "heun": heun,
    "dpmpp_2m": dpmpp_2m,
    "dpmpp_3m": dpmpp_3m,
    "dpmpp_sde": dpmpp_sde,
    "edm": edm,
    "langevin": langevin,
    "predictor_corrector": predictor_corrector,
}

DenoiseOn = Callable[[Schedule], Denoise]


def prior_sample(grid: Schedule, keys: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Draw x_T ~ N(0, scale_T^2 I), one image of shape `[h, w, c]` per key `[b]`."""
    return grid.scale[-1] * image_normal(fold(keys, 0), shape)


def start(sampler: Sampler, x: jax.Array) -> Stepped:
    """Return the state before the first row."""
    return Stepped(x, jnp.zeros_like(x), sampler.init(x))


def scan_rows(
    sampler: Sampler, denoise: Denoise, keys: jax.Array, state: Stepped, rows: Rows
) -> Stepped:
    """Run images through the rows; splitting the table into pieces gives the same images."""

    def advance(state: Stepped, row: Rows):
        own = fold(keys, row.index + 1)
        return sampler.step(denoise, own, state.x, row, state.carry), None

    return jax.lax.scan(advance, state, rounded(rows))[0]


def sample(
    sampler: Sampler,
    denoise_on: DenoiseOn,
    keys: jax.Array,
    shape: tuple[int, ...],
    grid: Schedule,
) -> jax.Array:
    """Draw images from noise: `[b, h, w, c]`, image i a function of `keys[i]` alone.

    Args:
        sampler: a sampler built by an entry of `SAMPLERS`.
        denoise_on: `(levels) -> denoise`, whose t indexes these levels.
        keys: one typed key per image, `[b]`.
        shape: shape of one image.
        grid: see `samplers.grids`.
    """
    plan = sampler.plan(grid, descent(grid))
    begun = start(sampler, prior_sample(grid, keys, shape))
    return scan_rows(sampler, denoise_on(plan.points), keys, begun, plan.rows).x


def rounded(rows: Any) -> Any:
    """Round float64 tables to the default precision; other tables are unchanged."""
    default = jnp.zeros(()).dtype
    return jax.tree.map(lambda a: a.astype(default) if a.dtype == np.float64 else a, rows)
