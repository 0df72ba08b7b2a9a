"""How t is drawn in training: records of pure functions, whose memory is part of what is saved.

To add one: write a function of T that returns a `Timesteps` and add its line to `TIMESTEPS`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from diffusion_jax.core.keys import image_keys, image_uniform


class Drawn(NamedTuple):
    """t int32 `[b]`, and the weight `[b]` that makes the mean of the losses unbiased."""

    t: jax.Array
    weight: jax.Array


class Timesteps(NamedTuple):
    """One way to draw t.

    init: `() -> memory`, None if there is none.
    draw: `(memory, key, index, batch) -> Drawn`; one key for the whole batch, on all devices;
        index int32 `[b]`, positions in the whole batch of the images at hand; batch, its size.
    update: `(memory, t, loss) -> memory`, from the whole batch `[batch]`, losses unweighted.
    """

    init: Callable[[], Any]
    draw: Callable[[Any, jax.Array, jax.Array, int], Drawn]
    update: Callable[[Any, jax.Array, jax.Array], Any]


def _even(key: jax.Array, index: jax.Array, batch: int) -> jax.Array:
    """Numbers frac(u + i/batch) with one u for the whole batch: each uniform, together even."""
    return jnp.mod(jax.random.uniform(key) + index / batch, 1.0)


def _memoryless(numbers: Callable[..., jax.Array], steps: int) -> Timesteps:
    def draw(memory, key, index, batch):
        t = jnp.minimum((numbers(key, index, batch) * steps).astype(jnp.int32), steps - 1)
        return Drawn(t, jnp.ones(t.shape))

    return Timesteps(lambda: None, draw, lambda memory, t, loss: memory)


def uniform(steps: int) -> Timesteps:
    """t uniform and independent for each image (Ho et al. 2020, algorithm 1)."""
    return _memoryless(lambda key, index, batch: image_uniform(image_keys(key, index)), steps)


def stratified(steps: int) -> Timesteps:
    """t even over the batch: floor(T frac(u + i/batch)), with one u for the whole batch.

    Each t is uniform on its own, so the loss stays unbiased, with less variance (Kingma et al.
    2021, appendix I.1).
    """
    return _memoryless(_even, steps)


class LossHistory(NamedTuple):
    """Per step `[T]`: a running mean of the squared loss, and how many losses it has seen."""

    square: jax.Array
    count: jax.Array


MEMORY = 10  # losses that a step remembers, and must have seen before it counts
UNIFORM_SHARE = 1e-3  # keeps every probability, and so every weight, within bounds


def probabilities(history: LossHistory) -> jax.Array:
    """p_t ~ sqrt(E[L_t^2]), uniform until every step is known (Nichol & Dhariwal 2021, eq. 18)."""
    steps = len(history.square)
    size = jnp.sqrt(history.square)
    known = jnp.all(history.count >= MEMORY) & (jnp.sum(size) > 0.0)
    p = jnp.where(known, size / jnp.maximum(jnp.sum(size), 1e-30), 1.0 / steps)
    return (1.0 - UNIFORM_SHARE) * p + UNIFORM_SHARE / steps


def remember(history: LossHistory, t: jax.Array, loss: jax.Array) -> LossHistory:
    """Take a batch in: the mean of each step's newest losses moves in with a memory of ten.

    A step that n losses came for keeps 0.9^n of what it knew; the first losses are averaged.
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
    """t in proportion to the root of its mean squared loss, weighted by 1 / (T p_t).

    The paper keeps the last ten losses of every step; here a running mean of that memory is kept,
    which does not depend on the order of the images (Nichol & Dhariwal 2021, section 3.3).
    """

    def draw(history, key, index, batch):
        p = probabilities(history)
        t = jnp.searchsorted(jnp.cumsum(p), _even(key, index, batch), side="right")
        t = jnp.minimum(t, steps - 1)
        return Drawn(t, 1.0 / (steps * p[t]))

    def init():
        return LossHistory(jnp.zeros(steps), jnp.zeros(steps, jnp.int32))

    return Timesteps(init, draw, remember)


TIMESTEPS = {"stratified": stratified, "uniform": uniform, "importance": importance}
