"""Laws of the prediction: it determines x0 and eps, and its error measures theirs."""

from collections.abc import Iterator

import jax.numpy as jnp
import numpy as np

from diffusion_jax.certification.law import Law, at_least, at_most
from diffusion_jax.certification.subject import Subject
from diffusion_jax.core.process import q_sample

WANTED = 1e-2  # the largest error of x0 in float32, for data in [-1, 1]


def laws(subject: Subject) -> Iterator[Law]:
    """Yield the laws of the prediction."""
    name, meaning, schedule = subject.name("prediction"), subject.meaning, subject.schedule
    size = np.hypot(meaning.a * schedule.scale, meaning.b * schedule.scale)
    condition = np.abs(meaning.d) / np.maximum(size, 1e-300)
    least = int(np.argmin(condition))
    yield at_least(
        name,
        "it determines x0 and eps at every level",
        float(condition[least]),
        1e-12,
        f"least at t = {least}",
    )
    x0, eps, t, xt, y = _perfect(subject)
    for what, found, truth in (
        ("x0", meaning.to_x0(y, xt, t), x0),
        ("eps", meaning.to_eps(y, xt, t), eps),
    ):
        errors = np.abs(np.asarray(found) - truth).max(axis=(1, 2, 3))
        worst = int(np.nanargmax(np.where(np.isfinite(errors), errors, np.inf)))
        yield at_most(
            name,
            f"{what} returns from a perfect output in float32",
            float(errors[worst]),
            WANTED,
            f"worst at t = {worst}",
        )
    yield at_most(
        name, "its squared error is (d / noise)^2 that of x0", _ratio(subject, x0, eps), 1e-9
    )
    half = np.arange(0, schedule.steps, 2)
    grid = schedule.take(half)
    there = np.concatenate(list(_tables(meaning.on(grid))))
    here = np.concatenate([table[half] for table in _tables(meaning)])
    gap = np.max(np.abs(there - here) / np.maximum(np.abs(here), 1e-300), initial=0.0)
    yield at_most(name, "on a coarser grid it means the same", float(gap), 1e-9)


def _tables(meaning):
    return meaning.a, meaning.b


def _perfect(subject: Subject):
    """Return x0, eps, t, x_t and the perfect output, one image of 64 pixels per step."""
    steps = subject.schedule.steps
    rng = np.random.default_rng(1)
    x0 = rng.uniform(-1.0, 1.0, (steps, 8, 8, 1)).astype(np.float32)
    eps = rng.normal(size=x0.shape).astype(np.float32)
    t = jnp.arange(steps)
    xt = q_sample(subject.schedule, jnp.asarray(x0), t, jnp.asarray(eps))
    return x0, eps, t, xt, subject.meaning.target(jnp.asarray(x0), jnp.asarray(eps), t)


def _ratio(subject: Subject, x0: np.ndarray, eps: np.ndarray) -> float:
    """Return the relative error of |y - y'|^2 = (d / noise)^2 |x0 - x0'|^2, x_t held, float64."""
    meaning, schedule = subject.meaning, subject.schedule
    some = schedule.signal > 0.0
    change = 0.25  # of x0; eps changes so that x_t stays
    y_change = meaning.a * change - meaning.b * schedule.signal / schedule.noise * change
    expected = np.square(meaning.d / schedule.noise * change)
    return float(np.max(np.abs(np.square(y_change)[some] / expected[some] - 1.0)))
