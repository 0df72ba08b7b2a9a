"""Everything that training changes, as one pytree."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax


class TrainState(NamedTuple):
    """step: updates done so far; `ema` has the shape of `params`.

    Where only images are drawn, `params` and `opt_state` are None.
    """

    step: Any
    params: Any
    ema: Any
    opt_state: Any


def create(params: Any, optimizer: optax.GradientTransformation) -> TrainState:
    """The state before the first update; the average starts at the parameters themselves.

    The average is a copy: an alias would be donated twice.
    """
    ema = jax.tree.map(jnp.copy, params)
    return TrainState(jnp.zeros((), jnp.int32), params, ema, optimizer.init(params))
