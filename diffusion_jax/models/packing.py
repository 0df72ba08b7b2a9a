"""Many small arrays as one: fewer programs to compile and run, fewer arrays to write."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

SMALL = "small"  # where they are
LIMIT = 4096  # elements; larger arrays stay as they are


def pack(params: Any) -> Any:
    """Lay the arrays of fewer than `LIMIT` elements end to end, in the order of their paths.

    Two thirds of a U-Net's arrays are biases and scales, with a fraction of its parameters. To an
    optimiser that works entry by entry it is all the same.
    """
    flat: dict[tuple[str, ...], Any] = flatten_dict(params)  # pyright: ignore[reportAssignmentType]
    small = [flat.pop(path).ravel() for path in _small(flat)]
    return {**unflatten_dict(flat), SMALL: jnp.concatenate(small)}


def unpack(packed: Any, shapes: Any) -> Any:
    """What `pack` was given.

    Args:
      shapes: the same tree of arrays or of their shapes.
    """
    wanted: dict[tuple[str, ...], Any] = flatten_dict(shapes)  # pyright: ignore[reportAssignmentType]
    paths = _small(wanted)
    ends = np.cumsum([wanted[path].size for path in paths])[:-1]
    large = {name: part for name, part in packed.items() if name != SMALL}
    flat: dict[tuple[str, ...], Any] = flatten_dict(large)  # pyright: ignore[reportAssignmentType]
    for path, part in zip(paths, jnp.split(packed[SMALL], ends), strict=True):
        flat[path] = part.reshape(wanted[path].shape)
    return unflatten_dict(flat)


def _small(flat: dict[tuple[str, ...], jax.Array]) -> list[tuple[str, ...]]:
    return sorted(path for path, array in flat.items() if array.size < LIMIT)
