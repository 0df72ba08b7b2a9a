"""Everything that training changes, as one pytree."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from diffusion_jax.core.timesteps import Timesteps


class Skipped(NamedTuple):
    """How many updates were skipped because loss or gradient were not finite, int32 scalars."""

    in_a_row: Any
    in_all: Any


class TrainState(NamedTuple):
    """The training state.

    step: number of batches seen so far.
    ema: the averaged parameters, shaped like `params`.
    memory: the memory of `Timesteps`.
    """

    step: Any
    params: Any
    ema: Any
    opt_state: Any
    memory: Any
    skipped: Any


def create(
    params: Any, optimizer: optax.GradientTransformation, timesteps: Timesteps
) -> TrainState:
    """Return the state before the first update; the average starts as a copy of the parameters.

    It must be a copy, because an alias would be donated twice.
    """
    ema = jax.tree.map(jnp.copy, params)
    zero = jnp.zeros((), jnp.int32)
    skipped = Skipped(zero, jnp.copy(zero))
    return TrainState(
        jnp.copy(zero), params, ema, optimizer.init(params), timesteps.init(), skipped
    )
