"""Sample many images: batches over devices, with the scan in pieces to report progress."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import groupby
from typing import Any, NamedTuple

import jax
import numpy as np

from diffusion_jax.core.arrays import pieces
from diffusion_jax.core.keys import Stream, image_keys, stream_key
from diffusion_jax.core.predictions import Denoise
from diffusion_jax.devices.compiler import compiler_options
from diffusion_jax.devices.sharding import Shardings, whole_batch
from diffusion_jax.samplers import batch_size
from diffusion_jax.samplers.base import Plan, Sampler, Stepped
from diffusion_jax.samplers.sample import scan_rows, start


class Frames(NamedTuple):
    """Intermediate x_t and x0 predictions of the watched images, `[frames, n, h, w, c]`.

    x_t is divided by its scale, so that it has unit variance on any path.
    """

    x: np.ndarray
    x0: np.ndarray


class Generated(NamedTuple):
    """One batch: images `[n, h, w, c]` in [-1, 1], their indices, and classes if they have any."""

    images: np.ndarray
    index: np.ndarray
    label: np.ndarray | None
    frames: Frames


class Method(NamedTuple):
    """A way to draw images.

    sampler, plan: the sampler and its rows.
    steps: number of levels in the sampling grid.
    denoise: `(params, label) -> denoise` on the plan's levels.
    begin: `(keys) -> x`, the images before the first row.
    label: `(index) -> class` of each image, None for an unconditional network.
    """

    sampler: Sampler
    plan: Plan
    steps: int
    denoise: Callable[[Any, jax.Array | None], Denoise]
    begin: Callable[[jax.Array], jax.Array]
    label: Callable[[np.ndarray], np.ndarray] | None


Generate = Callable[..., Iterator[Generated]]


def make_generate(method: Method, layout: Shardings, most: int) -> Generate:
    """Return `generate(params, seed, wanted, progress, watch=0)`, compiled once for all calls.

    It yields the images with indices `wanted`, ascending; image i depends only on the seed and i.
    All batches have one size n, and batch k covers the indices k n .. (k + 1) n - 1. So a later
    command with the same n draws missing images in the same batches as an earlier one.
    `progress` is called with the number of images done, in which a batch counts in proportion to
    its finished steps. Frames are kept for indices below `watch`.

    Args:
        layout: shardings of parameters and images.
        most: batch size, rounded up to a multiple of the devices and halved until it fits into
            memory, see `batch_size.largest_fitting`.
    """
    points, rows = method.plan
    chunks = pieces(rows)
    ends = np.cumsum([len(chunk.index) for chunk in chunks]) - 1
    scales = np.append(points.scale[-1], np.hypot(rows.signal, rows.noise)[ends])
    replicated, split = layout
    devices = list(split.device_set)
    size = 0

    @jax.jit
    def begin(seed, index):
        keys = image_keys(stream_key(seed, Stream.SAMPLE), index)
        return keys, start(method.sampler, method.begin(keys))

    @partial(jax.jit, compiler_options=compiler_options())
    def advance(params, label, keys, state, rows):
        return scan_rows(method.sampler, method.denoise(params, label), keys, state, rows)

    def prepare(seed, first: int, count: int):
        index = np.arange(first, first + count, dtype=np.int32)
        label = None if method.label is None else jax.device_put(method.label(index), split)
        return label, *begin(seed, jax.device_put(index, split))

    def choose_size(params) -> int:
        def compiled(n):  # cached: later calls of `advance` reuse it
            return advance.lower(params, *prepare(0, 0, n * len(devices)), chunks[0]).compile()

        each = whole_batch(most, layout) // len(devices)
        return len(devices) * batch_size.largest_fitting(
            compiled, each, batch_size.free_bytes(devices)
        )

    def draw(params, seed, first: int, report, watch: int):
        label, keys, state = prepare(seed, first, size)
        seen = [_first(state, watch)]
        for done, rows in enumerate(chunks, 1):
            state = advance(params, label, keys, state, rows)
            seen.append(_first(state, watch))
            jax.block_until_ready(state)  # so that work is reported when it is done
            report(done / len(chunks))
        x, x0 = (np.stack(each) for each in zip(*seen, strict=True))
        return np.asarray(state.x), Frames(x / scales.reshape(-1, 1, 1, 1, 1), x0[1:])

    def generate(
        params,
        seed: int,
        wanted: Sequence[int],
        progress: Callable[[float], None],
        watch: int = 0,
    ) -> Iterator[Generated]:
        nonlocal size
        params = jax.device_put(params, replicated)
        size = size or choose_size(params)
        done = 0
        for batch, group in groupby(wanted, lambda i: i // size):
            first, index = batch * size, np.asarray(list(group))
            share = len(index)

            def report(part, done=done, share=share):
                progress(done + part * share)

            x, frames = draw(params, seed, first, report, max(0, watch - first))
            label = None if method.label is None else method.label(index)
            yield Generated(x[index - first], index, label, frames)
            done += share

    return generate


def _first(state: Stepped, count: int) -> tuple[np.ndarray, np.ndarray]:
    return np.asarray(state.x[:count]), np.asarray(state.x0[:count])
