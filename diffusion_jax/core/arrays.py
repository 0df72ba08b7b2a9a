"""How per-step tables and per-image numbers meet images of any shape."""

import jax
import jax.numpy as jnp
import numpy as np


def expand(a: jax.Array, x: jax.Array) -> jax.Array:
    """Append axes of length one to `a`, whose shape leads that of `x`, until both broadcast."""
    return jnp.reshape(a, a.shape + (1,) * (x.ndim - a.ndim))


def at(table: np.ndarray, t: jax.Array, x: jax.Array) -> jax.Array:
    """Look a float64 per-step table up at `t` in the precision of `x`, ready to broadcast with it.

    Args:
        table: `[T]`, float64, one number per step.
        t: int32, any shape that leads the shape of `x`.
        x: the images that the result will meet.
    """
    return expand(jnp.asarray(table, jnp.result_type(x, jnp.float32))[t], x)


def sum_event(x: jax.Array, t: jax.Array) -> jax.Array:
    """Sum over the dimensions of one image: the axes of `x` beyond those of `t`."""
    return jnp.sum(x, axis=tuple(range(t.ndim, x.ndim)))


def mean_event(x: jax.Array, t: jax.Array) -> jax.Array:
    """Average over the dimensions of one image: the axes of `x` beyond those of `t`."""
    return jnp.mean(x, axis=tuple(range(t.ndim, x.ndim)))
