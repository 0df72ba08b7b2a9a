"""The network as pure functions of its parameters, so that no other code needs Flax.

To add a network: write a Flax module whose `__call__(x, t)` returns an image, and add its line to
`MODELS`. Its fields are keys under `config.model`, except `out_channels`, which it is given if it
has that field. A network with a field `classes` is also given `label`, and one whose `__call__`
takes `dropout_keys` one key per image; see `UNet`.
"""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from diffusion_jax.models.unet import UNet

MODELS: dict[str, Callable[..., nn.Module]] = {"unet": UNet}

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
    """Compute the output for images x [b, h, w, c] at times t [b]: [b, h, w, out_channels].

    `label` and `dropout_keys` reach only networks that take them.
    """
    wanted = inspect.signature(type(model).__call__).parameters
    given = {"label": label, "dropout_keys": dropout_keys}
    options: dict[str, Any] = {name: value for name, value in given.items() if name in wanted}
    output: Any = model.apply({"params": params}, x, t, **options)
    return output


def parameter_count(params: Params) -> int:
    """Count the scalars in a tree of arrays or of shapes."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))
