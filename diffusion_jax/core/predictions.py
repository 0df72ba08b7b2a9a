"""What the network's output means, and how it is turned into the clean image and the noise.

Every prediction is a pair of per-step coefficients (a, b): output = a x0 + b eps. With
x_t = signal x0 + noise eps and d = signal b - noise a, three formulas serve them all:

x0 = (b x_t - noise y) / d,   eps = (signal y - a x_t) / d,
and the squared error of y is (d / noise)^2 times that of x0.

To add one: write a function from a `Schedule` to (a, b) and add its line to `PREDICTIONS`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffusion_jax.core.arrays import at
from diffusion_jax.core.schedules import Schedule, single_steps


def _eps(schedule: Schedule):
    return np.zeros(schedule.steps), np.ones(schedule.steps)


def _x0(schedule: Schedule):
    return np.ones(schedule.steps), np.zeros(schedule.steps)


def _v(schedule: Schedule):
    """v = signal eps - noise x0 (Salimans & Ho 2022, section 4)."""
    return -schedule.noise, schedule.signal


def _score(schedule: Schedule):
    """The conditional score -eps / noise (Song & Ermon 2019)."""
    return np.zeros(schedule.steps), -1.0 / schedule.noise


def _mean(schedule: Schedule):
    """The posterior's mean x0_weight x0 + xt_weight x_t (Ho et al. 2020, eq. 7)."""
    row = single_steps(schedule)
    return row.x0_weight + row.xt_weight * schedule.signal, row.xt_weight * schedule.noise


PREDICTIONS = {"eps": _eps, "x0": _x0, "v": _v, "score": _score, "mean": _mean}


@dataclass(frozen=True, eq=False)
class Prediction:
    """One meaning of the output on one schedule: float64 tables `[T]` of a, b, signal, noise, d."""

    a: np.ndarray
    b: np.ndarray
    signal: np.ndarray
    noise: np.ndarray
    d: np.ndarray

    def target(self, x0: jax.Array, eps: jax.Array, t: jax.Array) -> jax.Array:
        """The output a perfect network would give: y = a x0 + b eps."""
        return at(self.a, t, x0) * x0 + at(self.b, t, x0) * eps

    def to_x0(self, y: jax.Array, xt: jax.Array, t: jax.Array) -> jax.Array:
        """x0 = (b x_t - noise y) / d."""
        return at(self.b / self.d, t, xt) * xt - at(self.noise / self.d, t, xt) * y

    def to_eps(self, y: jax.Array, xt: jax.Array, t: jax.Array) -> jax.Array:
        """eps = (signal y - a x_t) / d."""
        return at(self.signal / self.d, t, xt) * y - at(self.a / self.d, t, xt) * xt


def prediction(name: str, schedule: Schedule) -> Prediction:
    """The named entry of `PREDICTIONS` on `schedule`.

    Raises:
        ValueError: at some step the output does not determine x0 and eps (d or noise vanishes).
    """
    a, b = PREDICTIONS[name](schedule)
    d = schedule.signal * b - schedule.noise * a
    lost = np.flatnonzero((d == 0.0) | (schedule.noise == 0.0) | ~np.isfinite(d))
    if lost.size:
        raise ValueError(f"prediction '{name}' does not determine x0 at step t = {lost[0]}")
    return Prediction(a, b, schedule.signal, schedule.noise, d)


class Denoised(NamedTuple):
    """What a denoiser knows of x_t: the clean image and the noise, shaped like x_t."""

    x0: jax.Array
    eps: jax.Array


Denoise = Callable[[jax.Array, jax.Array], Denoised]


def denoiser(
    network: Callable[[jax.Array, jax.Array], jax.Array], meaning: Prediction, clip: bool
) -> Denoise:
    """Turn a network into `denoise(x, t)`, the only thing that samplers and the bound see.

    With `clip` the clean image is held in [-1, 1] and the noise is taken anew from it, so that
    x_t = signal x0 + noise eps still holds.

    Args:
        network: `(x_t, t) -> output`, shaped like x_t.
        meaning: what the output means.
        clip: whether to hold x0 in the range of images.
    """

    def denoise(x: jax.Array, t: jax.Array) -> Denoised:
        y = network(x, t)
        x0 = meaning.to_x0(y, x, t)
        if not clip:
            return Denoised(x0, meaning.to_eps(y, x, t))
        x0 = jnp.clip(x0, -1.0, 1.0)
        return Denoised(x0, (x - at(meaning.signal, t, x) * x0) / at(meaning.noise, t, x))

    return denoise
