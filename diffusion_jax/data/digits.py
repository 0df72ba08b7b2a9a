"""The UCI handwritten digits that come with scikit-learn: 1797 images of 8x8 in 17 levels."""

import numpy as np

from diffusion_jax.data.batches import permutation
from diffusion_jax.data.dataset import Dataset, Source, choose_split, loaded

TRAIN_SIZE = 1437
SPLIT_SEED = 0


def open_digits(split: str, directory: str, image_size: int, channels: int) -> Source:
    """The digits [8, 8, 1] with their 10 classes: 'train' (80%) or 'test' (the other 360).

    The other arguments are those of every source; the digits come in one form only.
    """
    from sklearn.datasets import load_digits

    choose_split("'digits'", ("train", "test"), split)
    levels, labels = load_digits(return_X_y=True)
    order = permutation(len(labels), SPLIT_SEED)
    chosen = order[:TRAIN_SIZE] if split == "train" else order[TRAIN_SIZE:]
    images = levels[chosen].reshape(-1, 8, 8, 1).astype(np.uint8)
    return loaded(Dataset(images, labels[chosen].astype(np.int32), levels=17, classes=10))
