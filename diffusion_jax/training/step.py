"""One training step: a pure function of the state and the batch."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from diffusion_jax.core.arrays import materialized
from diffusion_jax.core.keys import Stream, image_keys, image_normal, image_uniform, stream_key
from diffusion_jax.core.objective import Model, training_loss
from diffusion_jax.core.timesteps import Timesteps
from diffusion_jax.data.transforms import random_flip, to_unit_range
from diffusion_jax.training.state import Skipped, TrainState


class Batch(NamedTuple):
    """One batch, or a device's share of it.

    images: uint8 `[b, h, w, c]`, the data's integer levels.
    labels: int32 `[b]`.
    index: int32 `[b]`, the images' positions in the whole batch.
    """

    images: Any
    labels: Any
    index: Any


class Losses(NamedTuple):
    """The timestep and loss of each image, `[b]`, before weighting by how t was drawn."""

    t: jax.Array
    each: jax.Array


class Metrics(NamedTuple):
    """Metrics of one step: scalars, the updates skipped so far, and the whole batch's losses."""

    loss: jax.Array
    grad_norm: jax.Array
    learning_rate: jax.Array
    skipped: Skipped
    losses: Losses


Loss = Callable[[Any, Any, jax.Array, Batch], tuple[jax.Array, Losses]]
Step = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]


def make_loss(
    model: Model,
    loss: str | Callable[..., jax.Array],
    network: Callable,
    timesteps: Timesteps,
    *,
    flip: bool,
    no_label: int,
    label_dropout: float,
    seed: int,
    batch_size: int,
) -> Loss:
    """Return the loss of a batch: `(params, memory, step, batch) -> (scalar, Losses)`.

    The scalar is the mean over the images. t, noise, flips and dropout depend only on the seed,
    the step and the position in the whole batch; t depends on `memory` as well.

    Args:
        loss: a name in `core.objective.LOSSES`, or a function like its entries.
        network: `(params, x, time, label, dropout_keys) -> output`.
        timesteps: how t is drawn.
        no_label: the label that means "no class", given to each image with probability
            `label_dropout` (Ho & Salimans 2022, algorithm 1).
        batch_size: size of the whole batch, over all devices.
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


def ema_decay_at(step: jax.Array, decay: float, warmup: bool = True) -> jax.Array:
    """Return the EMA decay after `step` updates: min(decay, (1 + step)/(10 + step)).

    The smaller decay of the first steps keeps the average of a short run close to its parameters.
    Without `warmup` it is `decay` from the first update on.
    """
    ramp = (1.0 + step) / (10.0 + step)
    return jnp.minimum(decay, ramp) if warmup else jnp.full_like(ramp, decay)


def accumulated(loss: Loss, pieces: int) -> Callable[..., tuple[tuple[jax.Array, Losses], Any]]:
    """Make `value_and_grad` of a batch's mean loss, computed in equal pieces one after the other.

    The terms are the same, summed in another order; only one piece's activations are in memory.
    """
    gradient = jax.value_and_grad(loss, has_aux=True)
    if pieces == 1:
        return gradient

    def split(a):
        # A piece takes every pieces-th image, so that each device has a share of every piece.
        return jnp.moveaxis(a.reshape(-1, pieces, *a.shape[1:]), 1, 0)

    def join(a):
        return jnp.moveaxis(a, 0, 1).reshape(-1, *a.shape[2:])

    def whole(params, memory, step, batch: Batch):
        def add(total, part):
            (value, losses), grads = gradient(params, memory, step, part)
            return jax.tree.map(jnp.add, total, (value, grads)), losses

        start = (jnp.zeros(()), jax.tree.map(jnp.zeros_like, params))
        total, losses = jax.lax.scan(add, start, jax.tree.map(split, batch))
        value, grads = jax.tree.map(lambda a: a / pieces, total)
        return (value, jax.tree.map(join, losses)), grads

    return whole


def make_step(
    loss: Loss,
    timesteps: Timesteps,
    optimizer: optax.GradientTransformation,
    rate: optax.Schedule,
    ema_decay: float,
    pieces: int = 1,
    ema_warmup: bool = True,
    axis_name: str | None = None,
    whole: Callable[[Any], Any] = lambda params: params,
) -> Step:
    """Return one update of parameters, optimiser and average: `(state, batch) -> (state, metrics)`.

    If the loss or gradient is not finite, only the step and the counts of skipped updates change.

    Args:
        rate: the learning rate of `optimizer` by the number of updates, for the metrics.
        pieces: number of pieces that the batch is split into, see `accumulated`.
        ema_warmup: see `ema_decay_at`.
        axis_name: the mapped axis that gradients are averaged over (`pmap` only; under `jit` the
            batch is one array, so its mean already covers all devices).
        whole: `(params) -> params`, gathers split parameters on every device.
    """
    gradient = accumulated(lambda params, *rest: loss(whole(params), *rest), pieces)

    def step(state: TrainState, batch: Batch):
        (value, losses), grads = gradient(state.params, state.memory, state.step, batch)
        if axis_name is not None:
            value, grads = jax.lax.pmean((value, grads), axis_name)
            losses = jax.lax.all_gather(losses, axis_name, tiled=True)
        norm = optax.tree.norm(grads)
        finite = jnp.isfinite(value) & jnp.isfinite(norm)

        def kept(new, old):
            return jax.tree.map(lambda a, b: jnp.where(finite, a, b), new, old)

        updates, _ = optimizer.update(grads, state.opt_state, state.params)
        params = kept(optax.apply_updates(state.params, updates), state.params)
        # Compute the parameters first, since they depend on the moments; the moments can then be
        # updated in place. In any other order, parameters and moments would be copied.
        params, grads, opt_state = materialized((params, grads, state.opt_state))
        _, moved = optimizer.update(grads, opt_state, state.params)
        updated = state.step - state.skipped.in_all
        decay = ema_decay_at(updated, ema_decay, ema_warmup)
        ema = optax.incremental_update(params, state.ema, 1.0 - decay)
        skipped = kept(
            state.skipped._replace(in_a_row=jnp.zeros_like(state.skipped.in_a_row)),
            jax.tree.map(lambda n: n + 1, state.skipped),
        )
        new = TrainState(
            state.step + 1,
            params,
            kept(ema, state.ema),
            kept(moved, opt_state),
            kept(timesteps.update(state.memory, losses.t, losses.each), state.memory),
            skipped,
        )
        taken = jnp.asarray(rate(updated), jnp.float32)
        return new, Metrics(value, norm, taken, skipped, losses)

    return step
