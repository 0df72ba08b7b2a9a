"""Batches read ahead during training, by threads or by worker processes."""

import gc
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from diffusion_jax.data.batches import Order
from diffusion_jax.data.dataset import Dataset, DataSpec, Read, Source
from diffusion_jax.data.decoding import limited_pixels, set_filters
from diffusion_jax.errors import UserError

MOST_THREADS = 16
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class BatchStream(Iterator[tuple[np.ndarray, np.ndarray]]):
    """The batches of `start_step`, `start_step` + 1, ... without end: (images, labels) per batch.

    The batch of a step has the images `order.batch(step)[local]`, whether threads of this process
    read it or, with `workers` above 0, worker processes.
    local: this process's share of every batch.

    Raises UserError at the step of an image that cannot be read, and if a worker was killed.
    """

    def __init__(
        self,
        source: Source,
        order: Order,
        local: slice = slice(None),
        start_step: int = 0,
        workers: int = 0,
    ):
        import grain
        from absl import flags

        flags.FLAGS.mark_as_parsed()  # Grain reads its own flags, here the defaults
        batches = _Batches(source.read, source.spec, order, local, start_step)
        threads = 1 if workers else min(os.cpu_count() or 1, MOST_THREADS)
        self._batches: Any = iter(
            grain.MapDataset.source(batches)
            .to_iter_dataset(grain.ReadOptions(threads, prefetch_buffer_size=threads))
            .mp_prefetch(grain.MultiprocessingOptions(workers), worker_init_fn=_begin_work)
        )
        self._stack = ExitStack()
        self._stack.enter_context(limited_pixels())
        self._stack.callback(self._batches.close)

    def __next__(self) -> tuple[np.ndarray, np.ndarray]:
        try:
            with _held_signals():  # the first call starts the workers, which inherit it
                images, labels = next(self._batches)
            # Copies, because what workers hand over is shared memory that must not outlive them.
            return np.array(images), np.array(labels)
        except UserError as error:
            problem = str(error)
        except RuntimeError as error:
            if "Worker process was terminated" not in str(error):
                raise
            problem = (
                f"a process that reads images was killed ({error}); if memory is short, set a "
                "smaller --config.data.workers"
            )
        # A worker's error keeps a batch in shared memory, by a reference cycle with its traceback.
        gc.collect()
        raise UserError(problem)

    def close(self) -> None:
        """End the threads and processes; a batch being read is finished first."""
        self._stack.close()
        self._batches = None  # Grain's iterators complain if they live when Python ends


@dataclass(frozen=True)
class _Batches:
    """The local share of the batches from `start_step` on, as a random-access source for Grain."""

    read: Read
    spec: DataSpec
    order: Order
    local: slice
    start_step: int

    def __len__(self) -> int:
        return sys.maxsize

    def __getitem__(self, index: int):
        indices = self.order.batch(self.start_step + index)[self.local]
        dataset = Dataset(*self.read(indices), self.spec.levels, self.spec.classes)
        return dataset.images, dataset.labels


def _begin_work(worker: int, workers: int) -> None:
    """Make a worker process end when, and only when, the main process stops it or ends."""
    from absl import logging

    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    logging.set_verbosity(logging.ERROR)
    set_filters()
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent
    parent.join()
    os._exit(1)


@contextmanager
def _held_signals():
    """Block signals in this thread and in what it starts; deliver them to it afterwards."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
