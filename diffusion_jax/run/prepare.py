"""Reading the data and compiling the training step at the same time."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any, NamedTuple

import jax
import numpy as np

from diffusion_jax import build
from diffusion_jax.core.keys import Stream, stream_key
from diffusion_jax.data.dataset import Dataset, Source
from diffusion_jax.devices import sharding
from diffusion_jax.training import feed
from diffusion_jax.training.step import Batch


class Prepared(NamedTuple):
    """What training needs before its first step.

    dataset: None if images are streamed.
    draw: draws the initial state.
    parallel: the compiled step on all devices.
    compile_seconds: how long compiling it took.
    """

    dataset: Dataset | None
    draw: Callable[[], Any]
    parallel: sharding.Parallel
    compile_seconds: float


def serve(
    config, source: Source, dataset: Dataset | None, first: int, stack: ExitStack
) -> Callable[[int], Batch]:
    """Serve batches from memory or, if `dataset` is None, streamed from step `first` on.

    Args:
        stack: stops reading when it is closed.
    """
    seed, size = config.seed, config.train.batch_size
    if dataset is None:
        return feed.streamed(source, seed, size, first, config.data.workers, stack)
    return feed.in_memory(dataset, seed, size)


def read_and_compile(config, source: Source, training: build.Training, fresh: bool) -> Prepared:
    """Read the data, unless streamed, and meanwhile compile the step and, if `fresh`, `draw`."""
    size = config.train.batch_size
    own = size // jax.process_count()
    images = jax.ShapeDtypeStruct((own, *source.shape), np.uint8)
    number = jax.ShapeDtypeStruct((own,), np.int32)
    with ThreadPoolExecutor() as background:
        reading = None if config.data.stream else background.submit(source.load)

        def init():
            return training.init(stream_key(config.seed, Stream.INIT))

        shapes = jax.eval_shape(init)
        parallel = sharding.data_parallel(
            training.make_step, config.parallel, jax.devices(), size, shapes
        )

        def compile_step():
            began = time.perf_counter()
            return parallel.compile(Batch(images, number, number)), time.perf_counter() - began

        compiling = background.submit(compile_step)
        places = jax.tree.map(lambda a: a.sharding, parallel.state)
        drawing = jax.jit(init, out_shardings=places)
        drawing = drawing.lower().compile() if fresh else drawing
        dataset = reading and reading.result()
        return Prepared(dataset, drawing, *compiling.result())
