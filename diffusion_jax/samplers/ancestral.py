"""Ancestral sampling: draw x_s from the model's Gaussian p(x_s | x_t) at every move."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from diffusion_jax.core.keys import fold, image_normal
from diffusion_jax.core.process import VARIANCES
from diffusion_jax.core.schedules import Moves
from diffusion_jax.samplers.base import Sampler, Stepped


class Row(NamedTuple):
    """Coefficients of x_s = x0_weight x0 + xt_weight x_t + std eps."""

    index: np.ndarray
    t: np.ndarray
    x0_weight: np.ndarray
    xt_weight: np.ndarray
    std: np.ndarray


def ancestral(variance: str) -> Sampler:
    """The sampler of Ho et al. 2020, algorithm 2, on any moves; the move onto the data is a mean.

    x_s = x0_weight x0_hat + xt_weight x_t + sqrt(variance) eps

    Args:
        variance: a name in `VARIANCES`.
    """

    def rows(moves: Moves) -> Row:
        std = np.where(moves.s < 0, 0.0, np.sqrt(VARIANCES[variance](moves)))
        return Row(moves.index, moves.t, moves.x0_weight, moves.xt_weight, std)

    def step(denoise, keys, x, row: Row, carry) -> Stepped:
        x0 = denoise(x, jnp.full(x.shape[:1], row.t)).x0
        eps = image_normal(fold(keys, row.index + 1), x.shape[1:])
        return Stepped(row.x0_weight * x0 + row.xt_weight * x + row.std * eps, x0, carry)

    return Sampler(rows, lambda x: (), step)
