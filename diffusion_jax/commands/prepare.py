"""Reading the data and compiling the training step at the same time."""

from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np

from diffusion_jax import build
from diffusion_jax.core.keys import Stream, stream_key
from diffusion_jax.data.dataset import Source
from diffusion_jax.devices import sharding
from diffusion_jax.training.step import Batch


def prepare(config, source: Source, training: build.Training, fresh: bool):
    """Read the data, unless streamed, and compile the step and a `fresh` state at the same time.

    Returns:
        The data set or None, a function that draws the first state, and the step on all devices.
    """
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
        compiling = background.submit(parallel.compile, Batch(images, number, number))
        places = jax.tree.map(lambda a: a.sharding, parallel.state)
        drawing = jax.jit(init, out_shardings=places)
        drawing = drawing.lower().compile() if fresh else drawing
        return reading and reading.result(), drawing, compiling.result()
