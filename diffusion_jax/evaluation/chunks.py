"""Work cut to size: tables into pieces that the host can count, batches that devices can share."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffusion_jax.training.devices import Shardings

PIECES = 10


def pieces(rows: Any) -> list[Any]:
    """Cut a table's first axis into equal pieces: as many, up to ten, as its length allows."""
    length = len(jax.tree.leaves(rows)[0])
    count = max(n for n in range(1, PIECES + 1) if length % n == 0)
    return [
        jax.tree.map(lambda a, i=i: jnp.asarray(np.split(a, count)[i]), rows) for i in range(count)
    ]


def whole_batch(batch_size: int, layout: Shardings) -> int:
    """A batch size rounded up to a multiple of the number of devices."""
    devices = len(layout.split.device_set)
    return -(-batch_size // devices) * devices
