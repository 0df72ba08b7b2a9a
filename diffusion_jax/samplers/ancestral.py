"""Ancestral sampling: draw x_s from the model's Gaussian p(x_s | x_t) at every move."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffusion_jax.core.keys import fold, image_normal
from diffusion_jax.core.process import VARIANCES
from diffusion_jax.core.schedules import Moves
from diffusion_jax.samplers.base import Sampler, Stepped


class Row(NamedTuple):
    """Coefficients of x_s = x0_weight x0 + xt_weight x_t + std exp(span output / 2) eps."""

    index: np.ndarray
    t: np.ndarray
    x0_weight: np.ndarray
    xt_weight: np.ndarray
    std: np.ndarray
    span: np.ndarray


def ancestral(variance: str) -> Sampler:
    """The sampler of Ho et al. 2020, algorithm 2, on any moves; the move onto the data is a mean.

    x_s = x0_weight x0_hat + xt_weight x_t + sqrt(variance) eps, the variance that of the moves
    taken, learned or fixed.

    Args:
        variance: a name in `VARIANCES`.
    """

    def rows(moves: Moves) -> Row:
        log_var = VARIANCES[variance].log_var(moves)
        std = np.where(moves.s < 0, 0.0, np.exp(0.5 * log_var.offset))
        return Row(moves.index, moves.t, moves.x0_weight, moves.xt_weight, std, log_var.span)

    def step(denoise, keys, x, row: Row, carry) -> Stepped:
        denoised = denoise(x, jnp.full(x.shape[:1], row.t))
        eps = image_normal(fold(keys, row.index + 1), x.shape[1:])
        mean = row.x0_weight * denoised.x0 + row.xt_weight * x
        return Stepped(mean + _std(row, denoised.var_output) * eps, denoised.x0, carry)

    return Sampler(rows, lambda x: (), step)


def _std(row: Row, var_output: jax.Array | None):
    return row.std if var_output is None else row.std * jnp.exp(0.5 * row.span * var_output)
