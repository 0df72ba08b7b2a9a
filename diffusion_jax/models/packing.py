"""Many small arrays as one: fewer programs to compile and run, fewer arrays to write."""

import hashlib
from typing import Any, cast

import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

SMALL = "small"  # where they are
LIMIT = 4096  # elements; larger arrays stay as they are. Checkpoints depend on it


def pack(params: Any) -> Any:
    """Lay the arrays of fewer than `LIMIT` elements end to end, in the order of their paths.

    Two thirds of a U-Net's arrays are biases and scales, with a fraction of its parameters. To an
    optimiser that works entry by entry it is all the same.
    """
    flat = _flat(params)
    small = [flat.pop(path).ravel() for path in _small(flat)]
    return {**unflatten_dict(flat), SMALL: jnp.concatenate(small)}


def unpack(packed: Any, shapes: Any) -> Any:
    """What `pack` was given.

    Args:
      shapes: the same tree of arrays or of their shapes.
    """
    wanted = _flat(shapes)
    paths = _small(wanted)
    ends = np.cumsum([wanted[path].size for path in paths])[:-1]
    flat = _flat(packed)
    for path, part in zip(paths, jnp.split(flat.pop((SMALL,)), ends), strict=True):
        flat[path] = part.reshape(wanted[path].shape)
    return unflatten_dict(flat)


def layout(shapes: Any) -> str:
    """What lies where in the packed array, as a sum of names and shapes: equal where these are."""
    flat = _flat(shapes)
    named = "\n".join(f"{'/'.join(path)} {flat[path].shape}" for path in _small(flat))
    return f"in the order {hashlib.sha256(named.encode()).hexdigest()[:16]}"


def _flat(tree: Any) -> dict[tuple[str, ...], Any]:
    return cast("dict[tuple[str, ...], Any]", flatten_dict(tree))


def _small(flat: dict[tuple[str, ...], Any]) -> list[tuple[str, ...]]:
    return sorted(path for path, array in flat.items() if array.size < LIMIT)
