"""Which values are stored for the backward pass, and which are recomputed in it."""

from typing import Any

import flax.linen as nn
import jax
from jax.ad_checkpoint import checkpoint_name

# The expensive primitives of JAX, and `name`, the primitive that `keep` inserts.
KEPT = {"conv_general_dilated", "dot_general", "reduce_sum", "reduce_max", "name"}


def keep(array: jax.Array) -> jax.Array:
    """Mark an array to be stored for the backward pass."""
    return checkpoint_name(array, "kept")


def _is_kept(primitive: Any, *_: Any, **__: Any) -> bool:
    return primitive.name in KEPT


def recomputing(layer: type[nn.Module], everything: bool) -> Any:
    """Wrap a layer so that its backward pass recomputes values that are cheap to recompute.

    Stored are its arguments, the results of its convolutions, matrix products and sums, and what it
    marks by `keep`. A norm's output, for example, is recomputed: it is as large as its input, and
    takes only one multiplication and one addition.

    Args:
      everything: recompute everything except the layer's arguments.

    Source: Chen et al. 2016, section 3.
    """
    return nn.remat(layer, policy=None if everything else _is_kept)
