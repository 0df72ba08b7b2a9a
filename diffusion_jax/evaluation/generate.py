"""Sample many images: batches over devices, the scan cut into chunks so that progress shows."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from diffusion_jax.compiler import compiler_options
from diffusion_jax.core.keys import Stream, image_keys, stream_key
from diffusion_jax.core.predictions import Denoise
from diffusion_jax.evaluation.chunks import pieces, whole_batch
from diffusion_jax.samplers.base import Plan, Sampler, Stepped
from diffusion_jax.samplers.sample import scan_rows, start
from diffusion_jax.training.devices import Shardings


class Frames(NamedTuple):
    """The first images of a batch on their way, `[frames, n, h, w, c]`: x_t and the x0 aimed at.

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


def batches(num: int, batch_size: int) -> list[range]:
    """The numbers of the images of each batch."""
    return [range(i, min(i + batch_size, num)) for i in range(0, num, batch_size)]


def make_generate(method: Method, layout: Shardings, batch_size: int) -> Generate:
    """Prepare `generate(params, seed, wanted, progress, watch=0)`, compiled once for every call.

    It yields the images of each range of numbers in `wanted`; image i depends on the seed and on i
    alone. A short batch is filled up, so that every batch has one shape. `progress` hears how many
    images are done, in fractions. Frames are kept of the first `watch` images of each batch.

    Args:
        layout: where parameters and images live.
        batch_size: the largest range, rounded up to a multiple of the devices.
    """
    points, rows = method.plan
    parts = pieces(rows)
    ends = np.cumsum([len(part.index) for part in parts]) - 1
    scales = np.append(points.scale[-1], np.hypot(rows.signal, rows.noise)[ends])
    batch_size = whole_batch(batch_size, layout)
    replicated, split = layout

    @jax.jit
    def begin(seed, index):
        keys = image_keys(stream_key(seed, Stream.SAMPLE), index)
        return keys, start(method.sampler, method.begin(keys))

    @partial(jax.jit, compiler_options=compiler_options())
    def advance(params, label, keys, state, rows):
        return scan_rows(method.sampler, method.denoise(params, label), keys, state, rows)

    def batch(params, seed, first: int, report, watch: int):
        index = np.arange(first, first + batch_size, dtype=np.int32)
        label = None if method.label is None else jax.device_put(method.label(index), split)
        keys, state = begin(seed, jax.device_put(index, split))
        seen = [_first(state, watch)]
        for done, rows in enumerate(parts, 1):
            state = advance(params, label, keys, state, rows)
            seen.append(_first(state, watch))  # which waits for it
            report(done / len(parts))
        x, x0 = (np.stack(each) for each in zip(*seen, strict=True))
        return np.asarray(state.x), Frames(x / scales.reshape(-1, 1, 1, 1, 1), x0[1:])

    def generate(
        params,
        seed: int,
        wanted: Iterable[range],
        progress: Callable[[float], None],
        watch: int = 0,
    ) -> Iterator[Generated]:
        params = jax.device_put(params, replicated)
        done = 0
        for numbers in wanted:
            share = len(numbers)

            def report(part, done=done, share=share):
                progress(done + part * share)

            x, frames = batch(params, seed, numbers.start, report, min(watch, share))
            index = np.asarray(numbers)
            label = None if method.label is None else method.label(index)
            yield Generated(x[:share], index, label, frames)
            done += share

    return generate


def _first(state: Stepped, count: int) -> tuple[np.ndarray, np.ndarray]:
    return np.asarray(state.x[:count]), np.asarray(state.x0[:count])
