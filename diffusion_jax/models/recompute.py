"""What the backward pass finds kept, and what it computes again."""

from typing import Any

import flax.linen as nn
import jax
from jax.ad_checkpoint import checkpoint_name

# What takes long, by the names of JAX's primitives; and `name`, which is what `keep` leaves.
KEPT = {"conv_general_dilated", "dot_general", "reduce_sum", "reduce_max", "name"}


def keep(array: jax.Array) -> jax.Array:
    """The array, kept for the backward pass."""
    return checkpoint_name(array, "kept")


def _is_kept(primitive: Any, *_: Any, **__: Any) -> bool:
    return primitive.name in KEPT


def recomputing(layer: type[nn.Module], everything: bool) -> Any:
    """The layer, whose backward pass computes again what costs only the reading of its input.

    Kept are its arguments, what its convolutions, products and sums gave, and what it asked to
    `keep`. A norm's output, for one, is as large as its input, and one multiplication and one
    addition away from it.

    Args:
      everything: compute all but the layer's arguments again.

    Source: Chen et al. 2016, section 3.
    """
    return nn.remat(layer, policy=None if everything else _is_kept)
