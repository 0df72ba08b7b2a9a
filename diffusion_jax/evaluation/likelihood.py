"""Bits per dimension of a data set: every term of the bound, over every image."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from diffusion_jax.core.bound import bound_nats
from diffusion_jax.core.gaussian import bits_per_dim
from diffusion_jax.core.keys import Stream, image_keys, stream_key
from diffusion_jax.core.predictions import Denoise
from diffusion_jax.core.schedules import Schedule
from diffusion_jax.data.dataset import Dataset
from diffusion_jax.data.transforms import to_unit_range


class BitsPerDim(NamedTuple):
    """Per image `[n]`; total = prior + diffusion + reconstruction."""

    prior: np.ndarray
    diffusion: np.ndarray
    reconstruction: np.ndarray

    @property
    def total(self) -> np.ndarray:
        """The bound on -log2 p(x0) per dimension."""
        return self.prior + self.diffusion + self.reconstruction


def bits_per_dim_of(
    dataset: Dataset,
    schedule: Schedule,
    variance: str,
    denoise: Callable[[Any, jax.Array], Denoise],
    params: Any,
    seed: int = 0,
    batch_size: int = 360,
) -> BitsPerDim:
    """The bound of each image, one draw of noise per image and step, all T steps.

    Args:
        denoise: `(params, label) -> denoiser`.
        batch_size: images at once; the last batch may be smaller.
    """
    dims = int(np.prod(dataset.images.shape[1:]))
    key = stream_key(seed, Stream.EVALUATE)

    @jax.jit
    def terms(params, images, label, index):
        x0 = to_unit_range(images, dataset.levels)
        keys = image_keys(key, index)
        with jax.default_matmul_precision("highest"):
            bound = bound_nats(schedule, variance, denoise(params, label), dataset.levels, keys, x0)
        parts = (bound.prior, bound.terms[1:].sum(0), bound.terms[0])
        return [bits_per_dim(part, dims) for part in parts]

    batches = []
    for first in range(0, len(dataset.images), batch_size):
        part = slice(first, first + batch_size)
        images, labels = dataset.images[part], dataset.labels[part]
        batches.append(terms(params, images, labels, np.arange(first, first + len(images))))
    return BitsPerDim(*(np.concatenate(part) for part in zip(*batches, strict=True)))
