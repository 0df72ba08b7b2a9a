"""Before the first step: open the data, and read it while the training step compiles."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any, NamedTuple

import jax
import numpy as np

from diffusion_jax import build
from diffusion_jax.configuration import Config
from diffusion_jax.configuration.check import check
from diffusion_jax.core.keys import Stream, stream_key
from diffusion_jax.data.batches import Order, by_class
from diffusion_jax.data.dataset import Dataset, Source
from diffusion_jax.devices import sharding
from diffusion_jax.devices.compiler import enable_cache
from diffusion_jax.run import classes, initial
from diffusion_jax.training import feed
from diffusion_jax.training.step import Batch


class Prepared(NamedTuple):
    """What training needs before its first step.

    dataset: None if images are streamed.
    draw: draws the initial state.
    parallel: the compiled step on all devices.
    compile_seconds, read_seconds: how long compiling the step and reading the images took.
    """

    dataset: Dataset | None
    draw: Callable[[], Any]
    parallel: sharding.Parallel
    compile_seconds: float
    read_seconds: float

    def begin(self, weights: initial.Weights | None = None) -> Any:
        """Draw the initial state; other weights, if given, replace those drawn."""
        return self.draw() if weights is None else initial.adopt(self.draw(), weights)


def open_data(
    config: Config, given: Source | None, warn: Callable[[str], None]
) -> tuple[Source, build.Diffusion]:
    """Check a configuration, open the images to train on, and build the model for them.

    Args:
        given: the images, by default those that the configuration names.
        warn: called with each line that the user should see.

    Raises:
        UserError: the configuration is wrong, or does not fit the data.
    """
    check(config)
    sharding.check_batch(config.train.batch_size, jax.device_count(), config.train.accumulate)
    enable_cache()
    source = given or build.source(config)
    for note in source.notes:
        warn(note)
    classes.check_labels(config, source)
    return source, build.diffusion(config, source.spec)


def serve(
    config, source: Source, dataset: Dataset | None, first: int, stack: ExitStack
) -> Callable[[int], Batch]:
    """Serve batches from memory or, if `dataset` is None, streamed from step `first` on.

    Args:
        stack: stops reading when it is closed.
    """
    labels = source.labels if dataset is None else dataset.labels
    balanced = by_class(labels) if config.data.balance and labels is not None else ()
    order = Order(config.seed, config.train.batch_size, source.size, balanced)
    if dataset is None:
        return feed.streamed(source, order, first, config.data.workers, stack)
    return feed.in_memory(dataset, order)


def read_and_compile(config, source: Source, training: build.Training, fresh: bool) -> Prepared:
    """Read the data, unless streamed, and meanwhile compile the step and, if `fresh`, `draw`."""
    size = config.train.batch_size
    own = size // jax.process_count()
    images = jax.ShapeDtypeStruct((own, *source.shape), np.uint8)
    number = jax.ShapeDtypeStruct((own,), np.int32)
    with ThreadPoolExecutor() as background:

        def timed(work: Callable[[], Any]) -> tuple[Any, float]:
            began = time.perf_counter()
            return work(), time.perf_counter() - began

        reading = None if config.data.stream else background.submit(timed, source.load)

        def init():
            return training.init(stream_key(config.seed, Stream.INIT))

        shapes = jax.eval_shape(init)
        parallel = sharding.data_parallel(
            training.make_step, config.parallel, jax.devices(), size, shapes
        )

        compiling = background.submit(
            timed, lambda: parallel.compile(Batch(images, number, number))
        )
        places = jax.tree.map(lambda a: a.sharding, parallel.state)
        drawing = jax.jit(init, out_shardings=places)
        drawing = drawing.lower().compile() if fresh else drawing
        dataset, seconds = reading.result() if reading else (None, 0.0)
        return Prepared(dataset, drawing, *compiling.result(), seconds)
