"""Which images a training step sees: a pure function of the seed and the step."""

from functools import lru_cache

import numpy as np


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
