"""What a sampler is: a record of three pure functions."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from diffusion_jax.core.predictions import Denoise
from diffusion_jax.core.schedules import Moves


class Stepped(NamedTuple):
    """After one move: the image `x`, the clean image `x0` it was aimed at, the method's memory."""

    x: jax.Array
    x0: jax.Array
    carry: Any


class Sampler(NamedTuple):
    """One method of sampling.

    rows: `(moves) -> pytree of float64 tables`, with a first axis that the scan runs along.
    init: `(x) -> carry`, the method's memory before the first move (`()` if it has none).
    step: `(denoise, keys, x, row, carry) -> Stepped`, one move of all images `[b, h, w, c]`;
        `keys` is one key per image and `row` one row of the tables.
    """

    rows: Callable[[Moves], Any]
    init: Callable[[jax.Array], Any]
    step: Callable[[Denoise, jax.Array, jax.Array, Any, Any], Stepped]
