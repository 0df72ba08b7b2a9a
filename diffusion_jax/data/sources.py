"""All data sets by name, and the digits, which come with scikit-learn."""

from dataclasses import replace
from typing import Any

import numpy as np

from diffusion_jax.data import tfds_source
from diffusion_jax.data.arrays import open_arrays
from diffusion_jax.data.batches import permutation
from diffusion_jax.data.dataset import Dataset, Look, Source, choose_split, loaded
from diffusion_jax.data.decoding import check_background
from diffusion_jax.data.folder_listing import SPLITS
from diffusion_jax.data.image_folder import open_image_folder
from diffusion_jax.data.splits import held_out, parse_split, sliced
from diffusion_jax.errors import UserError, counted, unknown_name

DIGITS_SEED = 0  # seed of their order
DIGITS_SPLITS = {"train": slice(0, 1437), "test": slice(1437, None)}
# Parts of `train`, to choose settings on without looking at `test`.
ALIASES = {"digits": {"fit": "train[:1150]", "validation": "train[1150:]"}}


def open_digits(split: str, directory: str, look: Look) -> Source:
    """Open the UCI handwritten digits: 1797 images [8, 8, 1] in 17 levels, 10 classes.

    split: one of DIGITS_SPLITS; 'train' has 80% of the images, 'test' the other 360. The other
    arguments are not used.
    """
    from sklearn.datasets import load_digits

    choose_split("'digits'", (*DIGITS_SPLITS, *ALIASES["digits"]), split)
    levels, labels = load_digits(return_X_y=True)
    chosen = permutation(len(labels), DIGITS_SEED)[DIGITS_SPLITS[split]]
    images = levels[chosen].reshape(-1, 8, 8, 1).astype(np.uint8)
    dataset = Dataset(images, labels[chosen].astype(np.int32), levels=17, classes=10)
    return replace(loaded(dataset), splits=tuple(DIGITS_SPLITS))


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
    holdout: float = 0.0,
) -> Source:
    """Open one split of a data set: one of DATASETS, or any image data set of TFDS.

    Args:
        split: its name, or a slice of it, such as `train[:90%]`.
        directory: its folder.
        image_size, channels, background, exif: as in Look.
        holdout: share of the images of 'train' to hold out as the split 'test'.

    Raises:
        UserError: an unknown name or split, or images of another size or channel count.
    """
    check_background(background)
    look = Look(channels, image_size, background, exif)
    wanted = base_split(name, split) if not holdout else "train"
    source = part_of(_opened(name, wanted, directory, look), name, split, holdout)
    height, width, depth = source.shape
    if image_size and (height, width) != (image_size, image_size):
        raise UserError(f"'{name}' is {height}x{width}; set --config.data.image_size=0")
    if channels and depth != channels:
        raise UserError(f"'{name}' has {counted(depth, 'channel')}; set --config.data.channels=0")
    return source


def base_split(name: str, split: str) -> str:
    """Return the split that a slice, or a split like the digits' `validation`, is a part of."""
    asked = parse_split(split).name
    if name == "image_folder":
        return SPLITS.get(asked.lower(), asked)
    return parse_split(ALIASES.get(name, {}).get(asked, asked)).name


def part_of(source: Source, name: str, split: str, holdout: float) -> Source:
    """Return the part of a base split that a slice, an alias or a held-out share asks for.

    Raises:
        UserError: it has no images, or the data has a split 'test' beside a held-out share.
    """
    asked = parse_split(split)
    if holdout:
        source = _with_holdout(source, base_split(name, split), holdout)
    if alias := ALIASES.get(name, {}).get(asked.name):
        source = sliced(source, parse_split(alias))
    return sliced(source, asked)


def _opened(name: str, split: str, directory: str, look: Look) -> Source:
    if name in DATASETS:
        return DATASETS[name](split, directory, look)
    if builder := tfds_source.find_prepared_builder(name, directory):
        return tfds_source.open_builder(builder, split, look)
    nearest = ", ".join(tfds_source.nearest_names(name)) or "none"
    known = unknown_name("data set", name, DATASETS)
    raise UserError(f"{known}, or any image data set of TFDS (nearest: {nearest})")


def _with_holdout(source: Source, wanted: str, share: float) -> Source:
    if "test" in source.splits:
        raise UserError(
            f"config.data.holdout is {share:g}, but the data has a split 'test' of its own; set "
            "it to 0"
        )
    if wanted not in ("train", "test"):
        raise UserError(
            f"there is no split '{wanted}'; with config.data.holdout there are 'train' and 'test'"
        )
    part = held_out(source, share, rest=wanted == "train")
    return replace(part, splits=("train", "test"))


def load_dataset(name: str, split: str = "train", directory: str = "", **options: Any) -> Dataset:
    """Load one split of a data set into memory; arguments as in open_source."""
    return open_source(name, split, directory, **options).load()
