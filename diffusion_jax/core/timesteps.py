"""Ways to draw t in training: records of pure functions, whose memory is saved in checkpoints.

To add one: write a function of T that returns a `Timesteps` and add its line to `TIMESTEPS`. Its
other arguments are keys at the top level of a configuration.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from diffusion_jax.core.keys import image_keys, image_uniform


class Drawn(NamedTuple):
    """Steps t, int32 `[b]`, and the weights `[b]` that make the mean of the losses unbiased."""

    t: jax.Array
    weight: jax.Array


class Timesteps(NamedTuple):
    """One way to draw t.

    init: `() -> memory`, None if there is none.
    draw: `(memory, key, index, batch) -> Drawn`; all devices use the same key. `index`, int32
        `[b]`, holds the positions of these images in the whole batch, and `batch` is its size.
    update: `(memory, t, loss) -> memory`; t and the unweighted losses `[batch]` are those of the
        whole batch.
    """

    init: Callable[[], Any]
    draw: Callable[[Any, jax.Array, jax.Array, int], Drawn]
    update: Callable[[Any, jax.Array, jax.Array], Any]


def _even(key: jax.Array, index: jax.Array, batch: int) -> jax.Array:
    """Draw frac(u + i/batch) with one u for all i: each uniform, evenly spaced together."""
    return jnp.mod(jax.random.uniform(key) + index / batch, 1.0)


def _memoryless(numbers: Callable[..., jax.Array], steps: int) -> Timesteps:
    def draw(memory, key, index, batch):
        t = jnp.minimum((numbers(key, index, batch) * steps).astype(jnp.int32), steps - 1)
        return Drawn(t, jnp.ones(t.shape))

    return Timesteps(lambda: None, draw, lambda memory, t, loss: memory)


def uniform(steps: int) -> Timesteps:
    """Draw t uniformly and independently for each image (Ho et al. 2020, algorithm 1)."""
    return _memoryless(lambda key, index, batch: image_uniform(image_keys(key, index)), steps)


def stratified(steps: int) -> Timesteps:
    """Draw t evenly over the batch: floor(T frac(u + i/batch)), with one u for the whole batch.

    Each t is uniform on its own, so the loss is unbiased, and it varies less (Kingma et al. 2021,
    appendix I.1).
    """
    return _memoryless(_even, steps)


class LossHistory(NamedTuple):
    """The running mean of the squared loss and the number of losses seen, per step `[T]`."""

    square: jax.Array
    count: jax.Array


MEMORY = 10  # losses in the running mean; p_t is used once every step has seen this many
UNIFORM_SHARE = 1e-3  # bounds every probability from below, and so every weight from above


def probabilities(history: LossHistory) -> jax.Array:
    """Compute p_t, proportional to sqrt(E[L_t^2]) (Nichol & Dhariwal 2021, eq. 18).

    It is uniform until every step has seen enough losses.
    """
    steps = len(history.square)
    size = jnp.sqrt(history.square)
    known = jnp.all(history.count >= MEMORY) & (jnp.sum(size) > 0.0)
    p = jnp.where(known, size / jnp.maximum(jnp.sum(size), 1e-30), 1.0 / steps)
    return (1.0 - UNIFORM_SHARE) * p + UNIFORM_SHARE / steps


def remember(history: LossHistory, t: jax.Array, loss: jax.Array) -> LossHistory:
    """Update the running means with the losses of a batch.

    A timestep with n new losses keeps 0.9^n of its old estimate; its first ten are averaged.
    """
    new = jnp.zeros_like(history.count).at[t].add(1)
    total = jnp.zeros_like(history.square).at[t].add(jnp.square(loss))
    seen = history.count + new
    decayed = (1.0 - 1.0 / MEMORY) ** new
    averaged = history.count / jnp.maximum(seen, 1)
    keep = jnp.where(seen <= MEMORY, averaged, decayed)
    square = keep * history.square + (1.0 - keep) * total / jnp.maximum(new, 1)
    return LossHistory(jnp.where(new > 0, square, history.square), jnp.minimum(seen, 10 * MEMORY))


def importance(steps: int) -> Timesteps:
    """Draw t in proportion to the root of its mean squared loss, weighted by 1 / (T p_t).

    The paper averages the last ten losses of every step (Nichol & Dhariwal 2021, section 3.3). The
    running mean used here has a similar memory but does not depend on the order of the images.
    """

    def draw(history, key, index, batch):
        p = probabilities(history)
        t = jnp.searchsorted(jnp.cumsum(p), _even(key, index, batch), side="right")
        t = jnp.minimum(t, steps - 1)
        return Drawn(t, 1.0 / (steps * p[t]))

    def init():
        return LossHistory(jnp.zeros(steps), jnp.zeros(steps, jnp.int32))

    return Timesteps(init, draw, remember)


class LastLosses(NamedTuple):
    """The last losses of every step `[T, MEMORY]`, as a ring, and the number seen `[T]`."""

    loss: jax.Array
    count: jax.Array


def remember_last(history: LastLosses, t: jax.Array, loss: jax.Array) -> LastLosses:
    """Put the losses of a batch, in the order of its images, in the place of the oldest."""
    same = t[:, None] == t
    earlier = jnp.sum(jnp.tril(same, -1), 1)  # images before this one with the same t
    lasting = jnp.sum(jnp.triu(same, 1), 1) < MEMORY  # not replaced within this batch
    place = (history.count[t] + earlier) % MEMORY
    row = jnp.where(lasting, t, len(history.count))  # out of range: dropped
    kept = history.loss.at[row, place].set(loss, mode="drop")
    return LastLosses(kept, history.count.at[t].add(1))


def loss_second_moment(steps: int) -> Timesteps:
    """Draw t in proportion to the root mean square of its last ten losses, each t independently.

    It is `importance` exactly as in Nichol & Dhariwal 2021's code, and varies more.
    """

    def draw(history, key, index, batch):
        p = probabilities(LossHistory(jnp.mean(jnp.square(history.loss), 1), history.count))
        u = image_uniform(image_keys(key, index))
        t = jnp.minimum(jnp.searchsorted(jnp.cumsum(p), u, side="right"), steps - 1)
        return Drawn(t, 1.0 / (steps * p[t]))

    def init():
        return LastLosses(jnp.zeros((steps, MEMORY)), jnp.zeros(steps, jnp.int32))

    return Timesteps(init, draw, remember_last)


TIMESTEPS: dict[str, Callable[..., Timesteps]] = {
    "stratified": stratified,
    "uniform": uniform,
    "importance": importance,
    "loss_second_moment": loss_second_moment,
}
