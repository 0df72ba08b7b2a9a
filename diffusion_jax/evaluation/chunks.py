"""Work cut to size: tables into pieces that the host can count, batches that devices can share."""

from typing import Any

import jax
import jax.numpy as jnp

from diffusion_jax.devices.sharding import Shardings

PIECES = 20


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


def whole_batch(batch_size: int, layout: Shardings) -> int:
    """A batch size rounded up to a multiple of the number of devices."""
    devices = len(layout.split.device_set)
    return -(-batch_size // devices) * devices
