"""The interface of samplers: a table of rows, and a step that takes images through one row."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from diffusion_jax.core.moves import Moves
from diffusion_jax.core.predictions import Denoise
from diffusion_jax.core.schedules import Schedule


class Stepped(NamedTuple):
    """The state after a row: the image `x`, the predicted clean image `x0`, the method's memory."""

    x: jax.Array
    x0: jax.Array
    carry: Any


class Rows(NamedTuple):
    """The rows that the scan runs over, one per network call: every array has the first axis `[n]`.

    index: int32, the row's place in the whole table, from which its random keys are derived.
    move: int32, the move that the row belongs to; a move may take several rows.
    signal, noise: the level of x after the row, x = signal x0 + noise eps.
    table: the method's own float64 coefficients.
    """

    index: Any
    move: Any
    signal: Any
    noise: Any
    table: Any


class Plan(NamedTuple):
    """The noise levels `points` at which the network is called, and rows whose t indexes them."""

    points: Schedule
    rows: Rows


class Sampler(NamedTuple):
    """A sampling method: a record of three pure functions.

    plan: `(grid, moves) -> Plan` for any moves on the grid, in float64.
    init: `(x) -> carry`, the method's memory before the first row (`()` if it has none).
    step: `(denoise, keys, x, row, carry) -> Stepped`, one row for all images `[b, h, w, c]`;
        `keys` has one key per image, new in every row; a method draws from `fold(keys, 0)`.
    """

    plan: Callable[[Schedule, Moves], Plan]
    init: Callable[[jax.Array], Any]
    step: Callable[[Denoise, jax.Array, jax.Array, Rows, Any], Stepped]


class Stage(NamedTuple):
    """One row of every move: its coefficients, the level after it, and which moves include it."""

    table: Any
    signal: np.ndarray
    noise: np.ndarray
    taken: np.ndarray


def interleave(stages: list[Stage]) -> Rows:
    """Merge stages into rows, move by move, leaving out the stages that a move does not take."""
    taken = np.stack([stage.taken for stage in stages], axis=1)

    def merge(*tables):
        return np.stack(tables, axis=1)[taken]

    table = jax.tree.map(merge, *(stage.table for stage in stages))
    signal, noise = (merge(*(stage[i] for stage in stages)) for i in (1, 2))
    index = np.arange(len(signal), dtype=np.int32)
    return Rows(index, np.nonzero(taken)[0].astype(np.int32), signal, noise, table)
