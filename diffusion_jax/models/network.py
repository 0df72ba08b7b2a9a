"""The network as pure functions of its parameters, so that no other code needs Flax."""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

Params = Any  # a nested dict of float32 arrays


# Compiled, so that the forward pass, needed only for shapes, is removed as dead code.
@partial(jax.jit, static_argnames=("model", "image_shape"))
def init(model: nn.Module, key: jax.Array, image_shape: tuple[int, ...]) -> Params:
    """Draw the parameters of a network for images of shape (h, w, c)."""
    return model.init(key, jnp.zeros((1, *image_shape)), jnp.zeros(1))["params"]


def parameter_shapes(model: nn.Module, image_shape: tuple[int, ...]) -> Params:
    """Return the shapes of the parameters that `init` draws."""
    return jax.eval_shape(lambda key: init(model, key, image_shape), jax.random.key(0))


def apply(
    model: nn.Module,
    params: Params,
    x: jax.Array,
    t: jax.Array,
    label: jax.Array | None = None,
    dropout_keys: jax.Array | None = None,
) -> jax.Array:
    """Compute the output for images x [b, h, w, c] at times t [b]: [b, h, w, out_channels]."""
    output: Any = model.apply({"params": params}, x, t, label, dropout_keys)
    return output


def parameter_count(params: Params) -> int:
    """Count the scalars in a tree of arrays or of shapes."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))
