"""Sample many images: batches over devices, the scan cut into chunks so that progress shows."""

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
    """Images of a batch that are watched, `[frames, n, h, w, c]`: x_t and the x0 aimed at.

    x_t is over its scale, so that it has unit variance on any path.
    """

    x: np.ndarray
    x0: np.ndarray


class Generated(NamedTuple):
    """One batch: images `[n, h, w, c]` in [-1, 1], their numbers, and classes if they have any."""

    images: np.ndarray
    index: np.ndarray
    label: np.ndarray | None
    frames: Frames


class Method(NamedTuple):
    """How images are drawn.

    sampler, plan: the method and its rows; steps: how many levels of its grid they go down.
    denoise: `(params, label) -> denoise` on the plan's levels.
    begin: `(keys) -> x`, where the rows start.
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
    """Prepare `generate(params, seed, wanted, progress, watch=0)`, compiled once for every call.

    It yields the images of the numbers in `wanted`, which rise; image i depends on the seed and on
    i alone. Images are drawn in batches of one shape, those of n numbers from a multiple of n on:
    where as many fit again, what an earlier call left out comes from the same batch. `progress`
    hears how many images are done, in fractions. Frames are kept of the numbers below `watch`.

    Args:
        layout: where parameters and images live.
        most: images at once, rounded up to a multiple of the devices; as many as fit into their
            memory are taken, see `memory.largest_fitting`.
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
        def compiled(n):  # which the calls of `advance` then find
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
            seen.append(_first(state, watch))  # which waits for it
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
