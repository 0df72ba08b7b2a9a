"""Which images a training step sees: a pure function of the seed and the step."""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

SHUFFLE = 2**32 - 1  # in place of a class, for the order within a batch


class Order(NamedTuple):
    """The images of each batch.

    batch_size: of the whole batch, over all processes.
    size: the number of images.
    classes: the indices of the images of each class, if all are to be shown equally often.
    """

    seed: int
    batch_size: int
    size: int
    classes: Sequence[np.ndarray] = ()

    def batch(self, step: int) -> np.ndarray:
        """Return the indices of the images in the batch of `step` (0-based)."""
        if self.classes:
            return balanced_indices(self.seed, step, self.batch_size, self.classes)
        return batch_indices(self.seed, step, self.batch_size, self.size)


@lru_cache(maxsize=4)
def permutation(size: int, *seeds: int) -> np.ndarray:
    """Return a read-only permutation of 0..size-1, int64 [size], fixed by the seeds (>= 0).

    It sorts raw bits: NumPy guarantees that their stream never changes, but not that of
    Generator.permutation.
    """
    bits = np.random.Philox(np.random.SeedSequence(seeds)).random_raw(size)
    order = np.argsort(bits, kind="stable")
    order.flags.writeable = False
    return order


def batch_indices(seed: int, step: int, batch_size: int, size: int) -> np.ndarray:
    """Return the indices of the images in the batch of `step` (0-based), int64 [batch_size].

    Position p = step * batch_size + i of the stream shows image permutation_e[p mod size] in epoch
    e = p // size, so every image occurs once per epoch and a batch may span epochs. Process k of n
    takes the k-th of n equal slices.
    """
    first, last = step * batch_size, (step + 1) * batch_size
    pieces = []
    for epoch in range(first // size, (last - 1) // size + 1):
        start = epoch * size
        order = permutation(size, seed, epoch)
        pieces.append(order[max(first - start, 0) : last - start])
    return np.concatenate(pieces)


def by_class(labels: np.ndarray) -> list[np.ndarray]:
    """Return the indices of the images of each class that has images."""
    return [np.flatnonzero(labels == each) for each in np.unique(labels)]


def balanced_indices(
    seed: int, step: int, batch_size: int, classes: Sequence[np.ndarray]
) -> np.ndarray:
    """Return the indices of a batch in which all k classes are equally frequent, [batch_size].

    Position p of the stream is the q-th draw from class p mod k, q = p // k. If the class has n
    images, this is image q mod n in the order of the class's epoch q // n. Within a batch the
    positions are shuffled, so that class and position, on which t depends, are independent.

    Args:
        classes: the indices of the images of each class.
    """
    position = np.arange(step * batch_size, (step + 1) * batch_size)
    turn, found = position % len(classes), np.empty(batch_size, np.int64)
    for j in np.unique(turn):
        own, here = classes[j], turn == j
        epochs, places = np.divmod(position[here] // len(classes), len(own))
        orders = [_order_of_class(len(own), seed, int(epoch), j + 1) for epoch in epochs]
        found[here] = [own[order[i]] for order, i in zip(orders, places, strict=True)]
    return found[permutation.__wrapped__(batch_size, seed, step, SHUFFLE)]


_order_of_class = lru_cache(maxsize=2048)(permutation.__wrapped__)
