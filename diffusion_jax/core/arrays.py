"""How per-step tables and per-image numbers meet images of any shape."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

PIECES = 20  # that the host counts progress by


def expand(a: jax.Array, x: jax.Array) -> jax.Array:
    """Append axes of length one to `a`, whose shape leads that of `x`, until both broadcast."""
    return jnp.reshape(a, a.shape + (1,) * (x.ndim - a.ndim))


def lookup(table: np.ndarray, t: jax.Array, x: jax.Array) -> jax.Array:
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


def materialized(arrays: Any) -> Any:
    """The arrays, all of them in memory on a CPU before anything that uses one is computed.

    In programs that are compiled with `compiler_options`; others drop it. XLA's CPU compiler makes
    a program of its own for every array that is written, and repeats in each what leads to it
    rather than read what another wrote. Elsewhere the arrays alone.
    """
    return jax.lax.optimization_barrier(arrays) if jax.default_backend() == "cpu" else arrays


def pieces(rows: Any) -> list[Any]:
    """Cut a table's first axis into up to 20 pieces: equal ones, or the last one is shorter.

    Every length is compiled for, so a number of equal pieces is looked for first, from 5 up.
    """
    length = len(jax.tree.leaves(rows)[0])
    equal = max(n for n in range(1, PIECES + 1) if length % n == 0)
    size = -(-length // (equal if equal >= 5 else PIECES))
    return [
        jax.tree.map(lambda a, i=i: jnp.asarray(a[i : i + size]), rows)
        for i in range(0, length, size)
    ]
