"""Laws of drawing t: every step is drawn, and weighted means are unbiased."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from diffusion_jax.certification.law import HOLDS, Law, at_most
from diffusion_jax.certification.subject import Subject

BATCH = 64
PER_STEP = 100  # draws of each step, in the mean


def laws(subject: Subject) -> Iterator[Law]:
    """Yield the laws of the timesteps, before and after losses were seen."""
    name, steps = subject.name("timesteps"), subject.schedule.steps
    losses = jnp.asarray(np.exp(-4.0 * np.arange(steps) / steps) + 0.01, jnp.float32)
    memory = subject.timesteps.init()
    yield from _of(subject, memory, name, losses, "")
    if memory is None:
        return
    every = jnp.tile(jnp.arange(steps), 10)
    seen = subject.timesteps.update(memory, every, losses[every])
    yield from _of(subject, seen, name, losses, ", once losses are known")


def _of(subject: Subject, memory, name: str, losses, when: str) -> Iterator[Law]:
    steps = subject.schedule.steps
    count = max(-(-PER_STEP * steps // BATCH), 200)
    keys = jax.random.split(jax.random.key(0), count)
    index = jnp.arange(BATCH)
    draw = jax.jit(jax.vmap(lambda key: subject.timesteps.draw(memory, key, index, BATCH)))
    t, weight = (np.asarray(each) for each in draw(keys))
    outside = int(np.sum((t < 0) | (t >= steps)))
    yield at_most(name, f"t lies in 0 .. T-1{when}: draws outside", outside, 0)
    shown = np.clip(t, 0, steps - 1)
    times = np.bincount(shown.ravel(), minlength=steps)
    never = np.flatnonzero(times == 0)
    if not when:  # rare steps may be missing where the draw follows the losses
        note = f"never: t = {never[0]}" if len(never) else ""
        yield at_most(name, "every step is drawn: steps never drawn", len(never), 0, note)
    yield _unbiased(
        name, f"weighted losses have the mean over all steps{when}", weight, shown, losses
    )
    means = (weight * np.asarray(losses)[shown]).mean(axis=1)
    plain = np.asarray(losses)
    ratio = means.var() / (plain.var() / BATCH)
    note = "of the mean of a batch, for losses that fall with t"
    yield Law(
        name, f"variance beside that of uniform draws{when}", f"{ratio:.3g}", "-", HOLDS, note
    )


def _unbiased(name: str, statement: str, weight, t, losses) -> Law:
    """Compare the mean of weighted losses, of each tenth of the steps, with the truth."""
    steps, plain = len(losses), np.asarray(losses, np.float64)
    worst = 0.0
    for part in np.array_split(np.arange(steps), min(10, steps)):
        chosen = np.zeros(steps)
        chosen[part] = plain[part]
        means = (weight * chosen[t]).mean(axis=1)
        error = max(means.std() / np.sqrt(len(means)), 1e-6 * plain.mean())
        worst = max(worst, abs(means.mean() - chosen.mean()) / error)
    return at_most(name, f"{statement}: deviation in standard errors", worst, 5.0)
