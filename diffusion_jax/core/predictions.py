"""The meaning of the network's output, and its conversion to the clean image and the noise.

Every prediction is a pair of per-step coefficients (a, b): output y = a x0 + b eps. With
x_t = signal x0 + noise eps and d = signal b - noise a, three formulas hold for all of them:

x0 = (b x_t - noise y) / d,   eps = (signal y - a x_t) / d,
and the squared error of y is (d / noise)^2 times that of x0.

To add one: write a function from a `Schedule` to (a, b) and add its line to `PREDICTIONS`. Its
other arguments are keys at the top level of a configuration. If it is defined on the training steps
only, add its name to `OF_STEPS`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffusion_jax.core.arrays import lookup, overflowing
from diffusion_jax.core.moves import single_steps
from diffusion_jax.core.schedules import Schedule


def _eps(schedule: Schedule):
    """Return (a, b) of the noise (Ho et al. 2020, eq. 14)."""
    return np.zeros(schedule.steps), np.ones(schedule.steps)


def _x0(schedule: Schedule):
    """Return (a, b) of the clean image."""
    return np.ones(schedule.steps), np.zeros(schedule.steps)


def _v(schedule: Schedule):
    """Return (a, b) of v = signal eps - noise x0 (Salimans & Ho 2022, section 4)."""
    return -schedule.noise, schedule.signal


def _score(schedule: Schedule):
    """Return (a, b) of the conditional score -eps / noise (Song & Ermon 2019)."""
    return np.zeros(schedule.steps), -1.0 / schedule.noise


def _mean(schedule: Schedule):
    """Return (a, b) of the posterior mean x0_weight x0 + xt_weight x_t (Ho et al. 2020, eq. 7)."""
    row = single_steps(schedule)
    return row.x0_weight + row.xt_weight * schedule.signal, row.xt_weight * schedule.noise


PREDICTIONS: dict[str, Callable[..., tuple[np.ndarray, np.ndarray]]] = {
    "eps": _eps,
    "x0": _x0,
    "v": _v,
    "score": _score,
    "mean": _mean,
}
OF_STEPS = {"mean"}  # the mean of x_{t-1}: undefined between training steps


@dataclass(frozen=True, eq=False)
class Prediction:
    """One meaning of the output on one schedule.

    name: its name in `PREDICTIONS`.
    coefficients: `(schedule) -> (a, b)`.
    a, b: float64 tables `[T]`.
    """

    name: str
    coefficients: Callable[[Schedule], tuple[np.ndarray, np.ndarray]]
    schedule: Schedule
    a: np.ndarray
    b: np.ndarray

    @property
    def d(self) -> np.ndarray:
        """d = signal b - noise a: where it vanishes, the output does not determine x0."""
        return self.schedule.signal * self.b - self.schedule.noise * self.a

    def ask(self, network: "Network", xt: jax.Array, t: jax.Array) -> jax.Array:
        """Call the network on x_t scaled to unit variance: network(x_t / scale, time)."""
        seen = lookup(1.0 / self.schedule.scale, t, xt) * xt
        return network(seen, lookup(self.schedule.time, t, t))

    def target(self, x0: jax.Array, eps: jax.Array, t: jax.Array) -> jax.Array:
        """Return the output of a perfect network: y = a x0 + b eps."""
        return lookup(self.a, t, x0) * x0 + lookup(self.b, t, x0) * eps

    def to_x0(self, y: jax.Array, xt: jax.Array, t: jax.Array) -> jax.Array:
        """Compute x0 = (b x_t - noise y) / d."""
        noise = self.schedule.noise
        return lookup(self.b / self.d, t, xt) * xt - lookup(noise / self.d, t, xt) * y

    def to_eps(self, y: jax.Array, xt: jax.Array, t: jax.Array) -> jax.Array:
        """Compute eps = (signal y - a x_t) / d."""
        signal = self.schedule.signal
        return lookup(signal / self.d, t, xt) * y - lookup(self.a / self.d, t, xt) * xt

    def on(self, grid: Schedule) -> "Prediction":
        """Return the same prediction on another grid, whose levels may lie between training steps.

        For predictions in `OF_STEPS`, a and b are interpolated in time.
        """
        if self.name not in OF_STEPS:
            return Prediction(self.name, self.coefficients, grid, *self.coefficients(grid))
        known = self.schedule.time
        a, b = (np.interp(grid.time, known, table) for table in (self.a, self.b))
        return Prediction(self.name, self.coefficients, grid, a, b)


def prediction(name: str, schedule: Schedule, **arguments: Any) -> Prediction:
    """Return the named entry of `PREDICTIONS` on `schedule`.

    Args:
        arguments: keyword arguments of the entry.

    Raises:
        ValueError: at some step the output does not determine x0 and eps in float32: d or noise
            vanishes, or is so small that a coefficient overflows.
    """
    coefficients = partial(PREDICTIONS[name], **arguments)
    meaning = Prediction(name, coefficients, schedule, *coefficients(schedule))
    a, b, d, signal, noise = meaning.a, meaning.b, meaning.d, schedule.signal, schedule.noise
    with np.errstate(divide="ignore", invalid="ignore"):
        lost = overflowing(a, b, a / d, b / d, signal / d, noise / d, 1.0 / noise)
    if lost.size:
        raise ValueError(
            f"prediction '{name}' does not determine x0 at step t = {lost[0]} in float32, where "
            f"the log-SNR is {schedule.log_snr[lost[0]]:.4g}; use another prediction, such as 'v', "
            "or another schedule"
        )
    return meaning


class Denoised(NamedTuple):
    """A denoiser's estimates for x_t: the clean image and the noise, shaped like x_t.

    `var_output` is the output from which learned variances are computed, see `process.VARIANCES`;
    None if the variance is fixed.
    """

    x0: jax.Array
    eps: jax.Array
    var_output: jax.Array | None = None


Denoise = Callable[[jax.Array, jax.Array], Denoised]
Network = Callable[[jax.Array, jax.Array], jax.Array]


def split_output(output: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array | None]:
    """Split the output into the prediction and, if it has twice x's channels, the variance part."""
    channels = x.shape[-1]
    return output[..., :channels], output[..., channels:] if output.shape[-1] > channels else None


def denoiser(network: Network, meaning: Prediction, clip: bool) -> Denoise:
    """Turn a network into `denoise(x, t)`, the only thing that samplers and the bound see.

    With `clip`, x0 is clipped to [-1, 1] and eps is recomputed from it, so that
    x_t = signal x0 + noise eps still holds.

    Args:
        network: `(x_t / scale, time) -> output`, with the channels of x_t, or twice as many.
        meaning: what the output means; `t` indexes its schedule.
        clip: whether to clip x0 to [-1, 1].
    """

    def denoise(x: jax.Array, t: jax.Array) -> Denoised:
        schedule = meaning.schedule
        y, var_output = split_output(meaning.ask(network, x, t), x)
        x0 = meaning.to_x0(y, x, t)
        if not clip:
            return Denoised(x0, meaning.to_eps(y, x, t), var_output)
        x0 = jnp.clip(x0, -1.0, 1.0)
        eps = (x - lookup(schedule.signal, t, x) * x0) / lookup(schedule.noise, t, x)
        return Denoised(x0, eps, var_output)

    return denoise
