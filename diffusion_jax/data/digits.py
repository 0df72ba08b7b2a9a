"""The UCI handwritten digits that come with scikit-learn: 1797 images of 8x8 in 17 levels."""

import numpy as np

from diffusion_jax.data.batches import permutation
from diffusion_jax.data.dataset import Dataset, Source, choose_split, loaded

SPLIT_SEED = 0
# `fit` and `validation` are parts of `train`, to choose settings on without looking at `test`.
SPLITS = {
    "train": slice(0, 1437),
    "test": slice(1437, None),
    "fit": slice(0, 1150),
    "validation": slice(1150, 1437),
}


def open_digits(split: str, directory: str, image_size: int, channels: int) -> Source:
    """The digits [8, 8, 1] with their 10 classes, one of SPLITS: 80% to train, 360 to test.

    The other arguments are those of every source; the digits come in one form only.
    """
    from sklearn.datasets import load_digits

    choose_split("'digits'", SPLITS, split)
    levels, labels = load_digits(return_X_y=True)
    chosen = permutation(len(labels), SPLIT_SEED)[SPLITS[split]]
    images = levels[chosen].reshape(-1, 8, 8, 1).astype(np.uint8)
    return loaded(Dataset(images, labels[chosen].astype(np.int32), levels=17, classes=10))
