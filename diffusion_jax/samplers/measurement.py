"""Sampling of partly known images: linear measurements, inpainting, resampling (RePaint)."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from diffusion_jax.core.keys import fold, image_normal
from diffusion_jax.core.moves import Moves, levels
from diffusion_jax.core.schedules import Schedule
from diffusion_jax.samplers.base import Plan, Rows, Sampler, Stepped

Projection = Callable[[jax.Array], jax.Array]


def masked(known: ArrayLike) -> Projection:
    """Return the projection onto known pixels: `known` is 1 where a pixel is known, else 0."""
    return lambda x: jnp.asarray(known) * x


def downsampled(factor: int) -> Projection:
    """Return the projection that replaces each `factor` x `factor` square by its mean."""

    def project(x: jax.Array) -> jax.Array:
        *batch, h, w, c = x.shape
        squares = x.reshape(*batch, h // factor, factor, w // factor, factor, c)
        means = jnp.broadcast_to(squares.mean(axis=(-4, -2), keepdims=True), squares.shape)
        return means.reshape(x.shape)

    return project


def measured(sampler: Sampler, project: Projection, known: ArrayLike) -> Sampler:
    """Impose a measurement: after every row, insert it, noised to the row's level.

    x <- x + P(signal known + noise eps - x), where P = A^+ A projects onto what a linear
    measurement A sees (Lugmayr et al. 2022, eq. 8, for a mask; Choi et al. 2021, eq. 6, for
    averages). The result agrees with the measurement exactly.

    Args:
        sampler: any sampler.
        project: P, applied to images `[b, h, w, c]`.
        known: an image with these measurements, broadcastable with `[b, h, w, c]`.
    """

    def step(denoise, keys, x, row: Rows, carry) -> Stepped:
        stepped = sampler.step(denoise, keys, x, row, carry)
        eps = image_normal(fold(keys, 1), x.shape[1:])
        seen = row.signal * jnp.asarray(known) + row.noise * eps
        return stepped._replace(x=stepped.x + project(seen - stepped.x))

    return sampler._replace(step=step)


class _Jump(NamedTuple):
    """A method's table, and what is done after each row: x <- scale x + std eps."""

    table: Any
    scale: np.ndarray
    std: np.ndarray


def resampled(sampler: Sampler, jump: int, repeats: int) -> Sampler:
    """Run every segment of `jump` moves `repeats` times, noising x back in between (RePaint).

    This makes the drawn part of an image agree with the known part (Lugmayr et al. 2022, section
    4.2). It leaves the marginals of the forward process unchanged.

    Raises:
        ValueError: `jump` or `repeats` is below 1.
    """
    if jump < 1 or repeats < 1:
        raise ValueError(f"jump and repeats must be at least 1, got {jump} and {repeats}")

    def plan(grid: Schedule, moves: Moves) -> Plan:
        count = len(moves.t)
        segments = [np.arange(i, min(i + jump, count)) for i in range(0, count, jump)]
        order = np.concatenate([each for each in segments for _ in range(repeats)])
        first = np.concatenate([np.full(len(each) * repeats, each[0]) for each in segments])
        points, rows = sampler.plan(grid, jax.tree.map(lambda a: a[order], moves))
        again = np.append(order[1:] == first[:-1], False)  # the next move starts the segment again
        ends_move = np.append(rows.move[1:] != rows.move[:-1], True)
        up = levels(grid, moves.t[first[rows.move]])
        jumps = again[rows.move] & ends_move
        scaled = jumps & (rows.signal > 0.0)
        scale = np.divide(up.signal, rows.signal, out=np.ones(len(jumps)), where=scaled)
        var = np.square(up.noise) - np.square(scale * rows.noise)
        std = np.where(jumps, np.sqrt(np.maximum(var, 0.0)), 0.0)
        return Plan(points, rows._replace(table=_Jump(rows.table, scale, std)))

    def step(denoise, keys, x, row: Rows, carry) -> Stepped:
        jumping: _Jump = row.table
        stepped = sampler.step(denoise, keys, x, row._replace(table=jumping.table), carry)
        eps = image_normal(fold(keys, 2), x.shape[1:])
        return stepped._replace(x=jumping.scale * stepped.x + jumping.std * eps)

    return Sampler(plan, sampler.init, step)
