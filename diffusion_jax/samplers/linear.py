"""The step of almost every method: a linear combination of x and x0 predictions, plus noise."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from diffusion_jax.core.keys import fold, image_normal
from diffusion_jax.core.moves import Moves
from diffusion_jax.core.schedules import Schedule
from diffusion_jax.samplers.base import Plan, Rows, Sampler, Stepped


class Table(NamedTuple):
    """Coefficients of one network call at level t and of the update after it, float64 `[n]`.

    x' = xt_weight x + last_weight x_last + sum_k x0_weights[k] x0_hat_k + std exp(span v/2) eps,

    where x0_hat_0 is the clean image predicted in this row and x0_hat_k the one from k rows ago,
    x_last is the x before the previous row, and v is the network's variance output, if any.
    `x0_weights` is `[n, order]`, the others `[n]`.
    """

    t: np.ndarray
    xt_weight: np.ndarray
    last_weight: np.ndarray
    x0_weights: np.ndarray
    std: np.ndarray
    span: np.ndarray


class Memory(NamedTuple):
    """The x before the previous row, and the clean images predicted so far, newest first."""

    x: jax.Array
    x0: tuple[jax.Array, ...]


def table(
    t: np.ndarray,
    xt_weight: ArrayLike,
    x0_weights: Sequence[ArrayLike],
    std: ArrayLike = 0.0,
    last_weight: ArrayLike = 0.0,
    span: ArrayLike = 0.0,
) -> Table:
    """Build a table from arrays `[n]` or numbers; `x0_weights` has one entry per clean image."""
    t = np.asarray(t, np.int32)

    def full(a):
        return np.broadcast_to(np.asarray(a, np.float64), t.shape)

    weights = np.stack([full(each) for each in x0_weights], axis=-1)
    return Table(t, full(xt_weight), full(last_weight), weights, full(std), full(span))


def linear_sampler(plan: Callable[[Schedule, Moves], Plan], order: int = 1) -> Sampler:
    """Build the sampler of a plan whose tables combine `order` clean images."""

    def init(x):
        return Memory(x, (jnp.zeros_like(x),) * (order - 1))

    def step(denoise, keys, x, row: Rows, carry: Memory) -> Stepped:
        this: Table = row.table
        denoised = denoise(x, jnp.full(x.shape[:1], this.t))
        known = (denoised.x0, *carry.x0)
        mean = this.xt_weight * x + this.last_weight * carry.x
        mean += sum(this.x0_weights[k] * each for k, each in enumerate(known))
        eps = image_normal(fold(keys, 0), x.shape[1:])
        return Stepped(
            mean + _std(this, denoised.var_output) * eps,
            denoised.x0,
            Memory(x, known[: order - 1]),
        )

    return Sampler(plan, init, step)


def _std(row: Table, var_output: jax.Array | None):
    return row.std if var_output is None else row.std * jnp.exp(0.5 * row.span * var_output)
