"""The forward process, its posterior, and the model's reverse process.

To add a variance: write a function from `Moves` to a `LogVariance` and add its line to `VARIANCES`;
to add a decoder: write a function from a `Schedule` to a variance, or to the two ends of a learned
range of variances, and add its line to `DECODERS`.
Their other arguments are keys at the top level of a configuration.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffusion_jax.core.arrays import lookup
from diffusion_jax.core.moves import Moves, single_steps
from diffusion_jax.core.predictions import Denoise, Denoised
from diffusion_jax.core.schedules import Schedule, from_betas
from diffusion_jax.core.tables import entry


class Gaussian(NamedTuple):
    """A diagonal Gaussian: `mean` shaped like the image, `var` broadcastable with it."""

    mean: jax.Array
    var: jax.Array


def q_sample(schedule: Schedule, x0: jax.Array, t: jax.Array, eps: jax.Array) -> jax.Array:
    """Noise clean images to step t: x_t = signal x0 + noise eps (Ho et al. 2020, eq. 4).

    Args:
        x0, eps: images and standard normal noise, `[*t.shape, ...]`.
        t: int32, 0-based, any leading shape.
    """
    return lookup(schedule.signal, t, x0) * x0 + lookup(schedule.noise, t, x0) * eps


def q_marginal(schedule: Schedule, x0: jax.Array, t: jax.Array) -> Gaussian:
    """Return q(x_t | x0) = N(signal x0, noise^2 I) (Ho et al. 2020, eq. 4)."""
    return Gaussian(lookup(schedule.signal, t, x0) * x0, lookup(np.square(schedule.noise), t, x0))


def q_step(schedule: Schedule, previous: jax.Array, t: jax.Array) -> Gaussian:
    """Return q(x_t | x_{t-1}) = N(sqrt(alpha_t) x_{t-1}, beta_t I) (Ho et al. 2020, eq. 2)."""
    scale = schedule.signal / np.append(1.0, schedule.signal[:-1])
    forward_var = single_steps(schedule).forward_var
    return Gaussian(lookup(scale, t, previous) * previous, lookup(forward_var, t, previous))


def q_posterior(schedule: Schedule, x0: jax.Array, xt: jax.Array, t: jax.Array) -> Gaussian:
    """Return q(x_{t-1} | x_t, x0), a point mass on x0 at t = 0 (Ho et al. 2020, eqs. 6 and 7)."""
    row = single_steps(schedule)
    mean = lookup(row.x0_weight, t, xt) * x0 + lookup(row.xt_weight, t, xt) * xt
    return Gaussian(mean, lookup(row.posterior_var, t, xt))


class LogVariance(NamedTuple):
    """The model's log-variance at every move: offset + span * (the network's variance output).

    Both are float64 tables; the span is 0 where the variance is fixed.
    """

    offset: np.ndarray
    span: np.ndarray


def _fixed(var: np.ndarray) -> LogVariance:
    return LogVariance(np.log(var), np.zeros_like(var))


def _smallest(row: Moves) -> np.ndarray:
    """Return the posterior variance, but the forward variance for the step onto the data."""
    return np.where(row.s < 0, row.forward_var, row.posterior_var)


def fixed_small(row: Moves) -> LogVariance:
    """Use the posterior variance, optimal if the data are a point (Ho et al. 2020, section 3.2)."""
    return _fixed(_smallest(row))


def fixed_large(row: Moves) -> LogVariance:
    """Use the forward variance beta (Ho et al. 2020, section 3.2).

    It is optimal for data from N(0, I) on a variance-preserving path.
    """
    return _fixed(row.forward_var)


def learned_range(row: Moves) -> LogVariance:
    """Interpolate between the fixed variances on a log scale: -1 gives the small one, +1 the large.

    log var = v log beta_t + (1 - v) log beta~_t, v = (output + 1)/2 (Nichol & Dhariwal 2021,
    eq. 15). The decoder's variance stays fixed unless the decoder is `clipped_range`.
    """
    low, high = np.log(_smallest(row)), np.log(row.forward_var)
    return LogVariance(0.5 * (low + high), 0.5 * (high - low))


def learned_diagonal(row: Moves) -> LogVariance:
    """Learn any diagonal: the output is log(variance / beta_t) (Ho et al. 2020, table 2)."""
    return LogVariance(np.log(row.forward_var), np.ones_like(row.forward_var))


def learned_log_variance(row: Moves) -> LogVariance:
    """Learn any diagonal: the output is the log-variance itself, as in Ho et al. 2020's code.

    A new network, whose output is 0, starts from the variance 1. With it goes the decoder `unit`.
    """
    return LogVariance(np.zeros_like(row.forward_var), np.ones_like(row.forward_var))


VARIANCES: dict[str, Callable[..., LogVariance]] = {
    "fixed_small": fixed_small,
    "fixed_large": fixed_large,
    "learned_range": learned_range,
    "learned_diagonal": learned_diagonal,
    "learned_log_variance": learned_log_variance,
}


def is_learned(variance: str | Callable[[Moves], LogVariance]) -> bool:
    """Return whether the network outputs part of this variance, given by name or as a function."""
    two_steps = single_steps(from_betas([0.1, 0.2]))
    return bool(np.any(entry(VARIANCES, variance)(two_steps).span))


def _first_noise(schedule: Schedule) -> float:
    """Return 1 - alpha_bar of the first step: the noise variance that the decoder removes."""
    return float(np.square(schedule.noise[0]))


def _clipped(schedule: Schedule) -> float:
    """Return the posterior variance of the second step, as in Ho et al.'s code.

    It makes the bound very loose on schedules whose first step adds much more noise than the
    second, such as `log_snr`.
    """
    if schedule.steps < 2:
        raise ValueError("decoder 'clipped' needs at least 2 steps; use decoder 'first_noise'")
    return float(single_steps(schedule).posterior_var[1])


def _clipped_range(schedule: Schedule) -> tuple[float, float]:
    """Learn the variance between `clipped` and `first_noise`, as in Nichol & Dhariwal 2021's code.

    An output of -1 gives the smaller, +1 the larger. It needs a variance that is learned.
    """
    return _clipped(schedule), _first_noise(schedule)


def _unit(schedule: Schedule) -> float:
    """Return 1: with `learned_log_variance`, the output is the decoder's log-variance too."""
    return 1.0


DECODERS: dict[str, Callable[..., float | tuple[float, float]]] = {
    "first_noise": _first_noise,
    "clipped": _clipped,
    "clipped_range": _clipped_range,
    "unit": _unit,
}


@dataclass(frozen=True, eq=False)
class ReverseProcess:
    """The model's chain p(x_{t-1} | x_t) without its network: row t of each table is step t."""

    schedule: Schedule
    moves: Moves
    log_var: LogVariance

    def log_var_change(self, denoised: Denoised, t: jax.Array, x: jax.Array) -> jax.Array:
        """Return what the network adds to the log-variance: span * output, 0 if it is fixed."""
        if denoised.var_output is None:
            return jnp.zeros((), x.dtype)
        return lookup(self.log_var.span, t, x) * denoised.var_output

    def gaussian(self, denoised: Denoised, xt: jax.Array, t: jax.Array) -> Gaussian:
        """Return p(x_{t-1} | x_t), with the posterior's mean at the predicted x0.

        (Ho et al. 2020, eq. 11.)
        """
        mean, _ = q_posterior(self.schedule, denoised.x0, xt, t)
        var = lookup(np.exp(self.log_var.offset), t, xt)
        return Gaussian(mean, var * jnp.exp(self.log_var_change(denoised, t, xt)))


def reverse_process(
    schedule: Schedule,
    variance: str | Callable[[Moves], LogVariance],
    decoder: str | Callable[[Schedule], float] = "first_noise",
) -> ReverseProcess:
    """Build the reverse process.

    Args:
        variance: a name in `VARIANCES`, or a function like its entries.
        decoder: a name in `DECODERS`, or a function like its entries.

    Raises:
        ValueError: the schedule has too few steps for the decoder, or the decoder needs a learned
            variance.
    """
    row = single_steps(schedule)
    log_var = entry(VARIANCES, variance)(row)
    ends = np.log(entry(DECODERS, decoder)(schedule))
    log_var.offset[0] = np.mean(ends)
    if ends.ndim:
        if not is_learned(variance):
            raise ValueError(f"decoder '{decoder}' needs a learned variance, such as learned_range")
        log_var.span[0] = 0.5 * (ends[1] - ends[0])
    return ReverseProcess(schedule, row, log_var)


def p_mean_variance(
    reverse: ReverseProcess, denoise: Denoise, xt: jax.Array, t: jax.Array
) -> Gaussian:
    """Return the model's reverse step p(x_{t-1} | x_t) (Ho et al. 2020, eq. 1).

    The denoiser decides whether x0 is clipped.
    """
    return reverse.gaussian(denoise(xt, t), xt, t)
