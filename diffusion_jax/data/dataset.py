"""The interface of all image sources: integer pixels, and what is known before reading them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from diffusion_jax.data.fingerprint import fingerprint
from diffusion_jax.errors import UserError
from diffusion_jax.paths import as_path


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


class Read(Protocol):
    """Reads the images of a split by their indices; thread-safe, and can be pickled.

    Calling it returns images uint8 `[k, h, w, c]` and labels int32 `[k]`, as arrays of a Dataset.
    It raises UserError for an image that cannot be read.
    """

    def __call__(self, indices: Sequence[int] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Read some images and their labels."""
        ...

    def names(self, indices: Sequence[int] | np.ndarray) -> list[str]:
        """Return what identifies images within the data set: a path, or the index as text."""
        ...

    def sizes(self, indices: Sequence[int] | np.ndarray) -> list[int]:
        """Return the number of bytes of the images' files; empty if images are no files."""
        ...

    def contents(self, indices: Sequence[int] | np.ndarray) -> Iterator[bytes]:
        """Yield some images with their labels, as they are stored."""
        ...


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
    """What a network is built for: image shape `(h, w, c)`, levels, number of classes.

    class_names: the names of the classes, empty if they have only numbers.
    """

    shape: tuple[int, int, int]
    levels: int
    classes: int
    class_names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Source:
    """A split that is found but not yet decoded.

    shape: (h, w, c) of an image; levels and classes as in Dataset; size: the number of images.
    read: reads some images.
    load_by: `(read, size)` -> a Dataset of all `size` images of `read`.
    splits: the names of the data set's splits.
    labels: int32 [n] where they are known before reading, else None.
    class_names: as in DataSpec.
    unlabelled: why there are no classes, if that may be a mistake.
    sorted_by_class: a slice of the images, as they are in order, could lack a class.
    notes: lines for the user, such as what was left out.
    """

    shape: tuple[int, int, int]
    levels: int
    classes: int
    size: int
    read: Read
    load_by: Callable[[Read, int], Dataset]
    splits: tuple[str, ...] = ("train",)
    labels: np.ndarray | None = None
    class_names: tuple[str, ...] = ()
    unlabelled: str = ""
    sorted_by_class: bool = False
    notes: tuple[str, ...] = ()

    @property
    def spec(self) -> DataSpec:
        """What a network for these images is built for."""
        return DataSpec(self.shape, self.levels, self.classes, self.class_names)

    @cached_property
    def names(self) -> list[str]:
        """What identifies each image, see `Read`."""
        return self.read.names(range(self.size))

    @cached_property
    def fingerprint(self) -> str:
        """A hash by which a resumed run recognises these images."""
        return fingerprint(self.read, self.size)

    def load(self) -> Dataset:
        """Read the whole split; this may run in a thread while something else compiles."""
        return self.load_by(self.read, self.size)

    def holding(self, dataset: Dataset) -> "Source":
        """Return the same source, whose images were loaded already."""
        return replace(self, load_by=lambda read, size: dataset)

    def take(self, indices: np.ndarray) -> "Source":
        """Return the source of some of the images."""
        labels = None if self.labels is None else self.labels[indices]
        return replace(self, size=len(indices), read=_Part(self.read, indices), labels=labels)


def loaded(dataset: Dataset) -> Source:
    """Return the source of a data set that is already in memory."""
    size, *shape = dataset.images.shape
    whole = InMemory(dataset.images, dataset.labels)

    def load_by(read: Read, size: int) -> Dataset:
        if read is whole:
            return dataset
        return Dataset(*read(np.arange(size)), dataset.levels, dataset.classes)

    labels = dataset.labels if dataset.classes else None
    return Source(
        tuple(shape), dataset.levels, dataset.classes, size, whole, load_by, labels=labels
    )


@dataclass(frozen=True, eq=False)
class InMemory:
    """Reads from arrays."""

    images: np.ndarray
    labels: np.ndarray

    def __call__(self, indices):
        """Read some images and their labels."""
        return self.images[indices], self.labels[indices]

    def names(self, indices) -> list[str]:
        """Return the indices as text."""
        return [str(i) for i in indices]

    def sizes(self, indices) -> list[int]:
        """Return an empty list: the images are not files."""
        return []

    def contents(self, indices) -> Iterator[bytes]:
        """Yield pixels and labels."""
        for i in indices:
            yield self.images[i].tobytes() + self.labels[i].tobytes()


@dataclass(frozen=True, eq=False)
class _Part:
    """Reads some of the images that `whole` reads."""

    whole: Read
    chosen: np.ndarray

    def __call__(self, indices):
        return self.whole(self.chosen[indices])

    def names(self, indices) -> list[str]:
        return self.whole.names(self.chosen[indices])

    def sizes(self, indices) -> list[int]:
        return self.whole.sizes(self.chosen[indices])

    def contents(self, indices) -> Iterator[bytes]:
        return self.whole.contents(self.chosen[indices])


def own_path(kind: str, directory: str) -> Path:
    """Return the path of a user's own data; an empty one is an error, not the current folder."""
    if not directory:
        raise UserError(f"data set '{kind}' needs its folder: set --config.data.dir")
    return as_path(directory)


def choose_split(kind: str, splits, split: str) -> str:
    """Return `split` if it is one of `splits`; otherwise raise a UserError that lists them."""
    if split not in splits:
        raise UserError(f"{kind} has no split '{split}'; it has: {', '.join(splits)}")
    return split
