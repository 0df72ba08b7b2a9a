"""Sample many images: batches over devices, the scan cut into chunks so that progress shows."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from diffusion_jax.core.keys import Stream, image_keys, stream_key
from diffusion_jax.core.predictions import Denoise
from diffusion_jax.core.schedules import Moves
from diffusion_jax.evaluation.chunks import pieces, whole_batch
from diffusion_jax.samplers.base import Sampler
from diffusion_jax.samplers.sample import scan_moves, start
from diffusion_jax.training.devices import Shardings
from diffusion_jax.training.state import TrainState


class Generated(NamedTuple):
    """images `[n, h, w, c]` in [-1, 1]; chain `[k, n, h, w, c]`, the x0 predictions on the way."""

    images: np.ndarray
    chain: np.ndarray


Generate = Callable[[TrainState, int, int, Callable[[float], None]], Iterator[Generated]]


def make_generate(
    sampler: Sampler,
    denoise: Callable[[Any, jax.Array], Denoise],
    moves: Moves,
    shape: tuple[int, int, int],
    classes: int,
    layout: Shardings,
    batch_size: int,
) -> Generate:
    """Prepare `generate(state, seed, num, progress)`, compiled once for every call.

    It draws from the averaged parameters and yields images 0 .. num-1 batch by batch; image i
    depends on the seed and on i alone. A smaller last batch is filled up, so that every batch has
    one shape. `progress` hears how many images are done, in fractions.

    Args:
        denoise: `(params, label) -> denoiser`.
        shape: of one image.
        classes: of a class-conditional network, which image i asks for class i mod classes.
        layout: where parameters and images live.
        batch_size: at least this many images at once, rounded up to a multiple of the devices.
    """
    parts = pieces(sampler.rows(moves))
    batch_size = whole_batch(batch_size, layout)
    replicated, split = layout

    @jax.jit
    def begin(seed, index):
        keys = image_keys(stream_key(seed, Stream.SAMPLE), index)
        return keys, start(sampler, keys, shape)

    @jax.jit
    def advance(params, label, keys, state, rows):
        return scan_moves(sampler, denoise(params, label), keys, state, rows)

    def batch(params, seed, first, report):
        index = jax.device_put(np.arange(first, first + batch_size, dtype=np.int32), split)
        label = index % classes if classes else None
        keys, state = begin(seed, index)
        chain = []
        for done, rows in enumerate(parts, 1):
            state = advance(params, label, keys, state, rows)
            chain.append(np.asarray(state.x0))
            report(done / len(parts))
        return np.asarray(state.x), np.stack(chain)

    def generate(state: TrainState, seed: int, num: int, progress: Callable[[float], None]):
        params = jax.device_put(state.ema, replicated)
        for first in range(0, num, batch_size):
            share = min(batch_size, num - first)

            def report(part, first=first, share=share):
                progress(first + part * share)

            x, chain = batch(params, seed, first, report)
            yield Generated(x[:share], chain[:, :share])

    return generate
