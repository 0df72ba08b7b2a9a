"""One training step: a pure function of the state and the batch."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from diffusion_jax.core.keys import Stream, image_keys, image_normal, stream_key
from diffusion_jax.core.objective import TIMESTEPS, training_loss
from diffusion_jax.core.predictions import Prediction
from diffusion_jax.core.schedules import Schedule
from diffusion_jax.data.transforms import random_flip, to_unit_range
from diffusion_jax.training.state import TrainState


class Batch(NamedTuple):
    """One batch, or a device's share of it.

    images: uint8 `[b, h, w, c]`, the data's integer levels.
    labels: int32 `[b]`.
    index: int32 `[b]`, the images' positions in the whole batch.
    """

    images: Any
    labels: Any
    index: Any


class Metrics(NamedTuple):
    """Scalars of one step."""

    loss: jax.Array
    grad_norm: jax.Array


Loss = Callable[[Any, jax.Array, Batch], jax.Array]
Step = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]


def make_loss(
    schedule: Schedule,
    meaning: Prediction,
    network: Callable,
    *,
    weight: str,
    timesteps: str,
    levels: int,
    flip: bool,
    seed: int,
    batch_size: int,
) -> Loss:
    """The loss of a batch at a step: `(params, step, batch) -> scalar`, its mean over the images.

    t, noise, flips and dropout are functions of (seed, step, position in the whole batch) alone.

    Args:
        network: `(params, x, t, label, dropout_keys) -> output`.
        batch_size: of the whole batch, over all devices.
    """

    def loss(params, step, batch: Batch):
        def keys(stream: Stream):
            return image_keys(stream_key(seed, stream, step), batch.index)

        x0 = to_unit_range(batch.images, levels)
        if flip:
            x0 = random_flip(keys(Stream.FLIP), x0)
        key = stream_key(seed, Stream.TIMESTEP, step)
        t = TIMESTEPS[timesteps](key, batch.index, batch_size, schedule.steps)
        eps = image_normal(keys(Stream.NOISE), x0.shape[1:])
        dropout_keys = keys(Stream.DROPOUT)

        def output(x, t):
            return network(params, x, t, batch.labels, dropout_keys)

        return jnp.mean(training_loss(schedule, meaning, weight, output, x0, t, eps))

    return loss


def ema_decay_at(step: jax.Array, decay: float) -> jax.Array:
    """The average's decay after `step` updates: min(decay, (1 + step)/(10 + step)).

    The rise keeps the average of a short run close to its parameters.
    """
    return jnp.minimum(decay, (1.0 + step) / (10.0 + step))


def make_step(
    loss: Loss,
    optimizer: optax.GradientTransformation,
    ema_decay: float,
    axis_name: str | None = None,
) -> Step:
    """One update of parameters, optimiser and average: `(state, batch) -> (state, metrics)`.

    Args:
        axis_name: the mapped axis that gradients are averaged over (`pmap` only; under `jit` the
            batch is one array and its mean already is the mean over the devices).
    """

    def step(state: TrainState, batch: Batch):
        value, grads = jax.value_and_grad(loss)(state.params, state.step, batch)
        if axis_name is not None:
            value, grads = jax.lax.pmean((value, grads), axis_name)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        decay = ema_decay_at(state.step, ema_decay)
        ema = optax.incremental_update(params, state.ema, 1.0 - decay)
        state = TrainState(state.step + 1, params, ema, opt_state)
        return state, Metrics(value, optax.tree.norm(grads))

    return step
