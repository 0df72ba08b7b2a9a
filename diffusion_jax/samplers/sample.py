"""Run any sampler: one `lax.scan` over its table of moves.

To add a sampler: write a function that returns a `Sampler` and add its line to `SAMPLERS`.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffusion_jax.core.keys import fold, image_normal
from diffusion_jax.core.predictions import Denoise
from diffusion_jax.samplers.ancestral import ancestral
from diffusion_jax.samplers.base import Sampler, Stepped

SAMPLERS = {"ancestral": ancestral}


def start(sampler: Sampler, keys: jax.Array, shape: tuple[int, ...]) -> Stepped:
    """x_T ~ N(0, I), one key per image `[b]`; `shape` is that of one image `[h, w, c]`."""
    x = image_normal(fold(keys, 0), shape)
    return Stepped(x, jnp.zeros_like(x), sampler.init(x))


def scan_moves(
    sampler: Sampler, denoise: Denoise, keys: jax.Array, state: Stepped, rows: Any
) -> Stepped:
    """Carry images along a table of moves; a table cut into pieces gives the same images."""

    def move(state: Stepped, row):
        return sampler.step(denoise, keys, state.x, row, state.carry), None

    return jax.lax.scan(move, state, rounded(rows))[0]


def sample(sampler: Sampler, denoise: Denoise, keys: jax.Array, shape: tuple[int, ...], moves):
    """Draw images from noise: `[b, h, w, c]`, image i a function of `keys[i]` alone.

    Args:
        sampler: an entry of `SAMPLERS`, made.
        denoise: `(x, t) -> Denoised`.
        keys: one typed key per image, `[b]`.
        shape: of one image.
        moves: a grid, see `samplers.grids`.
    """
    rows = sampler.rows(moves)
    return scan_moves(sampler, denoise, keys, start(sampler, keys, shape), rows).x


def rounded(rows: Any) -> Any:
    """Round float64 tables to the precision that is computed in; integers stay as they are."""
    default = jnp.zeros(()).dtype
    return jax.tree.map(lambda a: a.astype(default) if a.dtype == np.float64 else a, rows)
