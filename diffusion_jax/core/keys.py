"""Random keys, derived from seed, stream, step and image index instead of carried as state."""

from enum import IntEnum

import jax
from jax.typing import ArrayLike


class Stream(IntEnum):
    """Purposes of random keys; two streams of one seed never share a key."""

    INIT = 0
    TIMESTEP = 1
    NOISE = 2
    DROPOUT = 3
    FLIP = 4
    SAMPLE = 5
    EVALUATE = 6
    DEQUANTISE = 7
    TRAJECTORY = 8
    PROBE = 9
    PROGRESSIVE = 10
    LABEL_DROPOUT = 11


def stream_key(seed: int, stream: Stream, step: int | jax.Array = 0) -> jax.Array:
    """Return the key of one stream at one step, a pure function of its arguments."""
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), stream), step)


def fold(keys: jax.Array, n: ArrayLike) -> jax.Array:
    """Fold `n` into every key `[b]`, which gives each image a new key for its n-th use."""
    return jax.vmap(jax.random.fold_in, (0, None))(keys, n)


def image_keys(key: jax.Array, index: jax.Array) -> jax.Array:
    """Return one key per image `[b]` from its global index, whatever its batch or device."""
    return jax.vmap(jax.random.fold_in, (None, 0))(key, index)


def image_normal(keys: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Draw standard normal noise `[b, *shape]`, image i from `keys[i]` alone."""
    return jax.vmap(lambda key: jax.random.normal(key, shape))(keys)


def image_uniform(keys: jax.Array) -> jax.Array:
    """Draw one number in [0, 1) per image `[b]`, each from its own key."""
    return jax.vmap(jax.random.uniform)(keys)
