"""One training step: a pure function of the state and the batch."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from diffusion_jax.core.keys import Stream, image_keys, image_normal, image_uniform, stream_key
from diffusion_jax.core.objective import Model, training_loss
from diffusion_jax.core.timesteps import Timesteps
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


class Losses(NamedTuple):
    """Each image's step and loss `[b]`, not yet weighted by how t was drawn."""

    t: jax.Array
    each: jax.Array


Loss = Callable[[Any, Any, jax.Array, Batch], tuple[jax.Array, Losses]]
Step = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]


def make_loss(
    model: Model,
    loss: str,
    network: Callable,
    timesteps: Timesteps,
    *,
    flip: bool,
    no_label: int,
    label_dropout: float,
    seed: int,
    batch_size: int,
) -> Loss:
    """The loss of a batch: `(params, memory, step, batch) -> (scalar, Losses)`.

    The scalar is the mean over the images; t, noise, flips and dropout are functions of (seed,
    step, position in the whole batch), and t of the memory of how it is drawn, alone.

    Args:
        loss: a name in `core.objective.LOSSES`.
        network: `(params, x, time, label, dropout_keys) -> output`.
        timesteps: how t is drawn.
        no_label: the label that stands for none, which each image gets with probability
            `label_dropout` (Ho & Salimans 2022, algorithm 1).
        batch_size: of the whole batch, over all devices.
    """

    def batch_loss(params, memory, step, batch: Batch):
        def keys(stream: Stream):
            return image_keys(stream_key(seed, stream, step), batch.index)

        x0 = to_unit_range(batch.images, model.levels)
        if flip:
            x0 = random_flip(keys(Stream.FLIP), x0)
        key = stream_key(seed, Stream.TIMESTEP, step)
        t, weight = timesteps.draw(memory, key, batch.index, batch_size)
        eps = image_normal(keys(Stream.NOISE), x0.shape[1:])
        dropout_keys, labels = keys(Stream.DROPOUT), batch.labels
        if label_dropout:
            dropped = image_uniform(keys(Stream.LABEL_DROPOUT)) < label_dropout
            labels = jnp.where(dropped, no_label, labels)

        def output(x, time):
            return network(params, x, time, labels, dropout_keys)

        each = training_loss(model, loss, output, x0, t, eps)
        return jnp.mean(weight * each), Losses(t, each)

    return batch_loss


def ema_decay_at(step: jax.Array, decay: float) -> jax.Array:
    """The average's decay after `step` updates: min(decay, (1 + step)/(10 + step)).

    The rise keeps the average of a short run close to its parameters.
    """
    return jnp.minimum(decay, (1.0 + step) / (10.0 + step))


def make_step(
    loss: Loss,
    timesteps: Timesteps,
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
        gradient = jax.value_and_grad(loss, has_aux=True)
        (value, losses), grads = gradient(state.params, state.memory, state.step, batch)
        if axis_name is not None:
            value, grads = jax.lax.pmean((value, grads), axis_name)
            losses = jax.lax.all_gather(losses, axis_name, tiled=True)
        memory = timesteps.update(state.memory, losses.t, losses.each)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        decay = ema_decay_at(state.step, ema_decay)
        ema = optax.incremental_update(params, state.ema, 1.0 - decay)
        state = TrainState(state.step + 1, params, ema, opt_state, memory)
        return state, Metrics(value, optax.tree.norm(grads))

    return step
