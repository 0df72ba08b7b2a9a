"""Conversions between stored pixels and network inputs: pure functions that run inside jit."""

import jax
import jax.numpy as jnp
import numpy as np


def to_unit_range(images, levels: int):
    """Map levels u in 0..levels-1 to float32 x = 2u / (levels - 1) - 1 in [-1, 1]."""
    top = levels - 1
    # In this form the mid-point and the two ends come out exact and symmetric in float32.
    return (2 * images.astype(jnp.float32) - top) / top


def to_levels(x, levels: int):
    """Return the level nearest to each x in [-1, 1], clipped to 0..levels-1, as uint8.

    NumPy arrays give NumPy arrays.
    """
    xp = np if isinstance(x, np.ndarray) else jnp
    top = levels - 1
    return xp.clip(xp.round((x + 1) * (top / 2)), 0, top).astype(xp.uint8)


def random_flip(keys, x):
    """Mirror each image of x [b, h, w, c] left to right with probability 1/2, by its own key.

    keys: typed keys [b]; whether an image is mirrored depends on its key alone.
    """
    mirrored = jax.vmap(jax.random.bernoulli)(keys)
    return jnp.where(mirrored[:, None, None, None], x[:, :, ::-1], x)
