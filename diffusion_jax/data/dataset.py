"""The interface of all image sources: integer pixels, and what is known before reading them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from diffusion_jax.errors import UserError


@dataclass(frozen=True, eq=False)
class Dataset:
    """One split of images in memory.

    images: uint8 [n, h, w, c], each value a level in 0..levels-1.
    labels: int32 [n], each a class in 0..classes-1; zeros if unlabelled.
    levels: how many values a pixel can take (256 for 8-bit images).
    classes: how many classes there are; 0 if unlabelled.

    Raises UserError if there is no image, or a level or a label lies outside its range.
    """

    images: np.ndarray
    labels: np.ndarray
    levels: int
    classes: int

    def __repr__(self) -> str:
        size, *shape = self.images.shape
        return f"Dataset({size} images {shape}, {self.levels} levels, {self.classes} classes)"

    def __post_init__(self):
        if len(self.images) == 0:
            raise UserError("the data set holds no images")
        if self.levels < 256 and (highest := self.images.max()) >= self.levels:
            raise UserError(
                f"pixel level {highest} is outside the {self.levels} levels (0..levels-1)"
            )
        lowest, highest = self.labels.min(), self.labels.max()
        if lowest < 0 or highest >= max(self.classes, 1):
            raise UserError(
                f"labels {lowest}..{highest} are outside the {self.classes} classes (0..classes-1)"
            )


# Some images of a split and their labels, as arrays of a Dataset, by their indices: `(indices [k])
# -> (images uint8 [k, h, w, c], labels int32 [k])`. It is thread-safe, can be pickled for other
# processes, and raises UserError for an image that cannot be read.
Read = Callable[[Sequence[int] | np.ndarray], tuple[np.ndarray, np.ndarray]]


class Look(NamedTuple):
    """How a picture becomes pixels.

    channels: 1 for grey, 3 for colour, 4 with alpha; 0 keeps what is stored.
    size: crop and resize to a square of this side; 0 keeps the size.
    background: colour that transparent pictures are put on; '' ignores transparency.
    exif: turn photographs upright by their EXIF orientation.
    """

    channels: int = 0
    size: int = 0
    background: str = "white"
    exif: bool = True


class DataSpec(NamedTuple):
    """What a network is built for: image shape `(h, w, c)`, levels, number of classes."""

    shape: tuple[int, int, int]
    levels: int
    classes: int


@dataclass(frozen=True)
class Source:
    """A split that is found but not yet decoded.

    shape: (h, w, c) of an image; levels and classes as in Dataset; size: the number of images.
    read(indices) reads some images; load() reads the whole split, and may run in a thread while
    something else compiles.
    notes: lines for the user, such as what was left out.
    """

    shape: tuple[int, int, int]
    levels: int
    classes: int
    size: int
    read: Read
    load: Callable[[], Dataset]
    notes: tuple[str, ...] = ()

    @property
    def spec(self) -> DataSpec:
        """What a network for these images is built for."""
        return DataSpec(self.shape, self.levels, self.classes)


def loaded(dataset: Dataset) -> Source:
    """Return the source of a data set that is already in memory."""
    size, *shape = dataset.images.shape
    read = _Chosen(dataset.images, dataset.labels)
    return Source(tuple(shape), dataset.levels, dataset.classes, size, read, lambda: dataset)


class _Chosen(NamedTuple):
    """Reads from arrays."""

    images: np.ndarray
    labels: np.ndarray

    def __call__(self, indices):
        return self.images[indices], self.labels[indices]


def own_path(kind: str, directory: str) -> Path:
    """Return the path of a user's own data; an empty one is an error, not the current folder."""
    if not directory:
        raise UserError(f"data set '{kind}' needs its folder: set --config.data.dir")
    return Path(directory).expanduser()


def choose_split(kind: str, splits, split: str) -> str:
    """Return `split` if it is one of `splits`; otherwise raise a UserError that lists them."""
    if split not in splits:
        raise UserError(f"{kind} has no split '{split}'; it has: {', '.join(splits)}")
    return split
