"""Batches on the host: `(step) -> Batch`, a pure function of the seed and the step.

With n processes the whole batch is cut into n equal slices, and process k feeds the k-th.
"""

from collections.abc import Callable
from contextlib import ExitStack

import jax
import numpy as np

from diffusion_jax.data.batches import Order
from diffusion_jax.data.dataset import Dataset, Source
from diffusion_jax.data.stream import BatchStream
from diffusion_jax.training.step import Batch


def in_memory(dataset: Dataset, order: Order) -> Callable[[int], Batch]:
    """Serve the batch of any step from images in memory."""
    own = _own_share(order.batch_size)
    position = np.arange(order.batch_size, dtype=np.int32)[own]

    def batch(step: int) -> Batch:
        index = order.batch(step)[own]
        return Batch(dataset.images[index], dataset.labels[index], position)

    return batch


def streamed(
    source: Source, order: Order, first: int, workers: int, stack: ExitStack
) -> Callable[[int], Batch]:
    """Serve the same batches, read during training: steps from `first` on, in order.

    Args:
        workers: number of reading processes; 0 reads in threads of this process.
        stack: stops reading when it is closed.
    """
    own = _own_share(order.batch_size)
    stream = BatchStream(source, order, own, first, workers)
    stack.callback(stream.close)
    position = np.arange(order.batch_size, dtype=np.int32)[own]

    def batch(step: int) -> Batch:
        return Batch(*next(stream), position)

    return batch


def _own_share(batch_size: int) -> slice:
    share = batch_size // jax.process_count()
    return slice(jax.process_index() * share, (jax.process_index() + 1) * share)
