"""Everything that training changes, as one pytree."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from diffusion_jax.core.timesteps import Timesteps


class TrainState(NamedTuple):
    """step: updates done so far; `ema` has the shape of `params`; `memory` of how t is drawn.

    Where nothing is trained, all but step and `ema` are None.
    """

    step: Any
    params: Any
    ema: Any
    opt_state: Any
    memory: Any


def create(
    params: Any, optimizer: optax.GradientTransformation, timesteps: Timesteps
) -> TrainState:
    """The state before the first update; the average starts at the parameters themselves.

    The average is a copy: an alias would be donated twice.
    """
    ema = jax.tree.map(jnp.copy, params)
    step = jnp.zeros((), jnp.int32)
    return TrainState(step, params, ema, optimizer.init(params), timesteps.init())
