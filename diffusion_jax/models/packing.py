"""Pack many small arrays into one: fewer programs to compile and run, fewer arrays to write.

Only the training state is packed; networks, samplers and users see the plain tree.
"""

import hashlib
from collections.abc import Callable
from itertools import groupby
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from diffusion_jax.core.arrays import materialized
from diffusion_jax.errors import UserError

SMALL = "small"  # the key of the packed array
LIMIT = 4096  # elements; larger arrays stay as they are. Checkpoints depend on it


def pack(params: Any, concatenate: Callable[[list], Any] = jnp.concatenate) -> Any:
    """Concatenate the float32 arrays of fewer than `LIMIT` elements, in the order of their paths.

    Two thirds of a U-Net's arrays are biases and scales, with a fraction of its parameters. An
    elementwise optimiser gives the same result on packed arrays.

    Args:
      concatenate: NumPy's keeps everything on the host.

    Raises:
      UserError: the network has a layer of the packed array's name.
    """
    if SMALL in params:
        raise UserError(f"the network has a layer called '{SMALL}', which is reserved; rename it")
    flat = _flat(params)
    small = [flat.pop(path).ravel() for path in _small(flat)]
    return {**unflatten_dict(flat), SMALL: concatenate(small or [np.zeros(0, np.float32)])}


def unpack(packed: Any, shapes: Any) -> Any:
    """Undo `pack` inside a compiled program.

    Args:
      shapes: the same tree of arrays or of their shapes.
    """
    wanted, flat = _flat(shapes), _flat(packed)
    groups = [list(paths) for _, paths in groupby(_small(wanted), key=lambda path: path[0])]
    sizes = [[wanted[path].size for path in paths] for paths in groups]
    # Split by module first, in memory: modules of equal shapes are then split by the same programs.
    modules = materialized(_split(flat.pop((SMALL,)), [sum(inside) for inside in sizes]))
    for paths, module, inside in zip(groups, modules, sizes, strict=True):
        for path, array in zip(paths, _split(module, inside), strict=True):
            flat[path] = array.reshape(wanted[path].shape)
    return unflatten_dict(flat)


def unpack_on_host(packed: Any, shapes: Any) -> Any:
    """Undo `pack` without compiling anything: small arrays come back as NumPy arrays."""
    wanted, flat = _flat(shapes), _flat(packed)
    paths, rest = _small(wanted), np.asarray(flat.pop((SMALL,)))
    for path in paths:
        size = wanted[path].size
        flat[path], rest = rest[:size].reshape(wanted[path].shape), rest[size:]
    return unflatten_dict(flat)


def layout(shapes: Any) -> str:
    """Describe the packed array by a checksum of the names and shapes of its parts."""
    flat = _flat(shapes)
    named = "\n".join(f"{'/'.join(path)} {flat[path].shape}" for path in _small(flat))
    return f"in the order {hashlib.sha256(named.encode()).hexdigest()[:16]}"


def _split(array: jax.Array, sizes: list[int]) -> list[jax.Array]:
    return jnp.split(array, np.cumsum(sizes)[:-1]) if sizes else []


def _flat(tree: Any) -> dict[tuple[str, ...], Any]:
    return cast("dict[tuple[str, ...], Any]", flatten_dict(tree))


def _small(flat: dict[tuple[str, ...], Any]) -> list[tuple[str, ...]]:
    return sorted(
        path for path, array in flat.items() if array.size < LIMIT and array.dtype == np.float32
    )
