"""Combine per-step tables and per-image numbers with images of any shape."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

# Tables with larger numbers are refused. Float32 reaches 256 times as far, which is left for the
# images, noises and squared errors that a table's numbers are multiplied with.
LARGEST = 2.0**120
PIECES = 20  # a scan is split into at most this many, so that the host can report progress


def expand(a: jax.Array, x: jax.Array) -> jax.Array:
    """Append axes of length 1 to `a` until it broadcasts with `x`, whose shape starts with a's."""
    return jnp.reshape(a, a.shape + (1,) * (x.ndim - a.ndim))


def lookup(table: np.ndarray, t: jax.Array, x: jax.Array) -> jax.Array:
    """Look up a float64 per-step table at `t`, in the precision of `x` and broadcastable with it.

    Args:
        table: `[T]`, float64, one number per step.
        t: int32; its shape must equal the leading axes of `x`.
        x: the images that the result will be combined with.
    """
    return expand(jnp.asarray(table, jnp.result_type(x, jnp.float32))[t], x)


def overflowing(*tables: np.ndarray) -> np.ndarray:
    """Return the steps at which a float64 per-step table is too large for float32, or no number."""
    return np.flatnonzero(~np.all(np.abs(tables) < LARGEST, axis=0))


def sum_event(x: jax.Array, t: jax.Array) -> jax.Array:
    """Sum over the dimensions of one image: the axes of `x` beyond those of `t`."""
    return jnp.sum(x, axis=tuple(range(t.ndim, x.ndim)))


def mean_event(x: jax.Array, t: jax.Array) -> jax.Array:
    """Average over the dimensions of one image: the axes of `x` beyond those of `t`."""
    return jnp.mean(x, axis=tuple(range(t.ndim, x.ndim)))


def materialized(arrays: Any) -> Any:
    """On a CPU, force all arrays into memory before anything that uses them is computed.

    XLA's CPU compiler generates separate code for every output array and recomputes shared inputs
    in each. The barrier prevents this, but only in programs compiled with `compiler_options`: in
    others XLA removes it. On other platforms the arrays are returned as they are.
    """
    return jax.lax.optimization_barrier(arrays) if jax.default_backend() == "cpu" else arrays


def pieces(rows: Any) -> list[Any]:
    """Split a table's first axis into at most 20 pieces, of equal length if possible.

    Each distinct length is compiled separately. If no number of pieces from 5 to 20 divides the
    axis evenly, the last piece may be shorter.
    """
    length = len(jax.tree.leaves(rows)[0])
    equal = max(n for n in range(1, PIECES + 1) if length % n == 0)
    size = -(-length // (equal if equal >= 5 else PIECES))
    return [
        jax.tree.map(lambda a, i=i: jnp.asarray(a[i : i + size]), rows)
        for i in range(0, length, size)
    ]
