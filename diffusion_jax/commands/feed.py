"""The host's side of the data: `(step) -> Batch`, a pure function of the seed and the step.

A batch is this process's share, an equal slice by the process's number.
"""

from contextlib import ExitStack

import jax
import numpy as np

from diffusion_jax.data.batches import batch_indices
from diffusion_jax.data.dataset import Dataset, Source
from diffusion_jax.data.stream import BatchStream
from diffusion_jax.training.step import Batch


def batches(config, dataset: Dataset):
    """Batches of images in memory, of any step."""
    size, count, own = config.train.batch_size, len(dataset.images), _own(config)
    position = np.arange(size, dtype=np.int32)[own]

    def batch(step: int) -> Batch:
        index = batch_indices(config.seed, step, size, count)[own]
        return Batch(dataset.images[index], dataset.labels[index], position)

    return batch


def streamed(config, source: Source, first: int, stack: ExitStack):
    """The same batches read while training goes on: for steps from `first` on, in order.

    Args:
        stack: ends the reading when it is closed.
    """
    size, own = config.train.batch_size, _own(config)
    stream = BatchStream(source, config.seed, size, own, first, config.data.workers)
    stack.callback(stream.close)
    position = np.arange(size, dtype=np.int32)[own]

    def batch(step: int) -> Batch:
        return Batch(*next(stream), position)

    return batch


def _own(config) -> slice:
    share = config.train.batch_size // jax.process_count()
    return slice(jax.process_index() * share, (jax.process_index() + 1) * share)
