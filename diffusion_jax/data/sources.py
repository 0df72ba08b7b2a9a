"""All data sets by name, and the digits, which come with scikit-learn."""

from typing import Any

import numpy as np

from diffusion_jax.data import tfds_source
from diffusion_jax.data.arrays import open_arrays
from diffusion_jax.data.batches import permutation
from diffusion_jax.data.dataset import Dataset, Look, Source, choose_split, loaded
from diffusion_jax.data.decoding import check_background
from diffusion_jax.data.image_folder import open_image_folder
from diffusion_jax.errors import UserError, unknown_name

DIGITS_SEED = 0  # seed of their order
# `fit` and `validation` are parts of `train`, to choose settings on without looking at `test`.
DIGITS_SPLITS = {
    "train": slice(0, 1437),
    "test": slice(1437, None),
    "fit": slice(0, 1150),
    "validation": slice(1150, 1437),
}


def open_digits(split: str, directory: str, look: Look) -> Source:
    """Open the UCI handwritten digits: 1797 images [8, 8, 1] in 17 levels, 10 classes.

    split: one of DIGITS_SPLITS; 'train' has 80% of the images, 'test' the other 360. The other
    arguments are not used.
    """
    from sklearn.datasets import load_digits

    choose_split("'digits'", DIGITS_SPLITS, split)
    levels, labels = load_digits(return_X_y=True)
    chosen = permutation(len(labels), DIGITS_SEED)[DIGITS_SPLITS[split]]
    images = levels[chosen].reshape(-1, 8, 8, 1).astype(np.uint8)
    return loaded(Dataset(images, labels[chosen].astype(np.int32), levels=17, classes=10))


# Each is (split, directory, look) -> Source; any other name is looked up in TFDS.
DATASETS = {
    "arrays": open_arrays,
    "digits": open_digits,
    "image_folder": open_image_folder,
}


def open_source(
    name: str,
    split: str = "train",
    directory: str = "",
    image_size: int = 0,
    channels: int = 0,
    background: str = "white",
    exif: bool = True,
) -> Source:
    """Open one split of a data set: one of DATASETS, or any image data set of TFDS.

    directory: its folder. image_size, channels: convert the images to these; 0 keeps their own.
    background, exif: as in Look.
    Raises UserError for an unknown name or split, or images of another size or channel count.
    """
    check_background(background)
    look = Look(channels, image_size, background, exif)
    if name in DATASETS:
        source = DATASETS[name](split, directory, look)
    elif builder := tfds_source.find_prepared_builder(name, directory):
        source = tfds_source.open_builder(builder, split, look)
    else:
        nearest = ", ".join(tfds_source.nearest_names(name)) or "none"
        known = unknown_name("data set", name, DATASETS)
        raise UserError(f"{known}, or any image data set of TFDS (nearest: {nearest})")
    height, width, depth = source.shape
    if image_size and (height, width) != (image_size, image_size):
        raise UserError(f"'{name}' is {height}x{width}; set --config.data.image_size=0")
    if channels and depth != channels:
        raise UserError(f"'{name}' has {depth} channels; set --config.data.channels=0")
    return source


def load_dataset(name: str, split: str = "train", directory: str = "", **look: Any) -> Dataset:
    """Load one split of a data set into memory; arguments as in open_source."""
    return open_source(name, split, directory, **look).load()
