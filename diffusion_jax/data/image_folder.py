"""A folder of image files, with or without class subfolders."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from diffusion_jax.data.dataset import Look, Source, choose_split, own_path
from diffusion_jax.data.decoding import decode_image, encoded, limited_pixels
from diffusion_jax.data.folder_listing import (
    EXTENSIONS,
    SPLITS,
    Listing,
    find_splits,
    left_out_note,
    list_folder,
    top_of,
)
from diffusion_jax.data.unreadable import BadImage, all_bad
from diffusion_jax.errors import UserError

T = TypeVar("T")


def open_image_folder(split: str, directory: str, look: Look) -> Source:
    """Open the images under `directory`, sorted by path, with 256 levels.

    DIR/train, DIR/test and the like are the splits, see `folder_listing.find_splits`; without them
    everything is 'train'. Subfolders of a split are classes, if there are two or more and all
    images lie in them.
    look: its size crops and resizes to a square; 0 keeps the size, which all must then share.
    Its channels are 3 or 0 for RGB, 1 for gray.

    Raises UserError for a folder without readable images, or a missing split.
    """
    look = look._replace(channels=look.channels or 3)
    if look.channels not in (1, 3):
        raise UserError(f"--config.data.channels={look.channels}: images have 1 or 3 channels")
    root = own_path("image_folder", directory)
    if not root.is_dir():
        raise UserError(f"--config.data.dir='{root}' is not a folder of images")
    listing = list_folder(root)
    if not listing.images:
        note = left_out_note(root, listing)
        extensions = ", ".join(EXTENSIONS)
        raise UserError(f"'{root}' holds no images ({extensions}){note and f'; {note}'}")
    folders = find_splits(root, listing)
    folder = folders[chosen_split(root, folders, split)]
    of_splits = {name: _within(listing.images, root, place) for name, place in folders.items()}
    files = _within(listing.images, root, folder)
    sample, shape = first_readable(str(folder), files, look)
    names = class_names([file for every in of_splits.values() for file in every])
    numbers = {name: number for number, name in enumerate(names)}
    labels = np.array([numbers.get(top_of(file), 0) for file in files], np.int32)
    read = Files(str(folder), files, labels, shape, look, sample)
    source = encoded(f"'{folder}'", shape, len(names), len(files), read)
    return replace(
        source,
        splits=tuple(folders),
        labels=labels if names else None,
        class_names=tuple(names),
        unlabelled="" if names else why_unlabelled(folders, of_splits),
        sorted_by_class=True,
        notes=notes(root, listing),
    )


def why_unlabelled(folders: dict[str, Path], files: dict[str, list[str]]) -> str:
    """Return why images have no classes, '' if there are no subfolders.

    Args:
        folders, files: the folder of each split, and its images.
    """
    tops = sorted({top_of(file) for every in files.values() for file in every})
    if tops == [""]:
        return ""
    if "" in tops:
        split, stray = next((s, f) for s, every in files.items() for f in every if not top_of(f))
        return f"'{folders[split] / stray}' lies in no class folder; move it into one"
    (only,) = tops
    place = next(iter(folders.values()))
    some = next(iter(files.values()))
    inner = sorted({top_of(file.removeprefix(only + os.sep)) for file in some})
    if len(inner) > 1 and inner[0]:
        return (
            f"the class folders ({', '.join(inner[:3])}, ...) lie one level down; set "
            f"--config.data.dir={place / only}"
        )
    return f"'{place}' has only one class folder, '{only}'; classes need two or more"


def chosen_split(root: Path, folders: dict[str, Path], split: str) -> str:
    """Return the name of the split that was asked for by any of its names.

    Raises:
        UserError: there is no such split.
    """
    found = SPLITS.get(split.lower(), split)
    if found == "test" and folders == {"train": root}:
        raise UserError(
            f"'{root}' has no split 'test'; lay it out as {root}/train and {root}/test, or train "
            "with --config.data.holdout=0.1"
        )
    return choose_split(f"'{root}'", folders, found)


def notes(root: Path, listing: Listing) -> tuple[str, ...]:
    """Return lines on what is left out, and on animations."""
    animated = sum(path.lower().endswith(".gif") for path in listing.images)
    lines = [
        left_out_note(root, listing),
        f"'{root}': of {animated} .gif files, the first frames are used" if animated else "",
    ]
    return tuple(filter(None, lines))


def _within(images: list[str], root: Path, folder: Path) -> list[str]:
    """Return the paths of the images in a folder under `root`, relative to that folder."""
    if folder == root:
        return images
    start = folder.name + os.sep
    return [path.removeprefix(start) for path in images if path.startswith(start)]


def first_readable(folder: str, files: list[str], look: Look) -> tuple[str, tuple[int, int, int]]:
    """Return the first image that can be read, by its path within `folder`, and its shape.

    Those before it are not reported here: loading lists all that cannot be read.
    """
    errors = []
    with limited_pixels():
        for file in files:
            path = os.path.join(folder, file)
            try:
                return file, decode_image(path, path, look).shape
            except BadImage as error:
                errors.append(str(error))
    raise all_bad(errors, len(files))


@dataclass(frozen=True, eq=False)
class Files:
    """Reads image files by their paths within `folder`; all must have the shape of `sample`."""

    folder: str
    files: list[str]
    labels: np.ndarray
    shape: tuple[int, int, int]
    look: Look
    sample: str

    def __call__(self, indices):
        """Read some images and their labels."""
        images = np.empty((len(indices), *self.shape), np.uint8)
        for place, i in enumerate(indices):
            images[place] = self._decode(os.path.join(self.folder, self.files[i]))
        return images, self.labels[indices]

    def names(self, indices) -> list[str]:
        """Return the paths."""
        return [self.files[i].replace(os.sep, "/") for i in indices]

    def sizes(self, indices) -> list[int]:
        """Return the sizes of the files in bytes."""
        return [self._asked(i, lambda path: path.stat().st_size) for i in indices]

    def contents(self, indices) -> Iterator[bytes]:
        """Yield the bytes of some files."""
        for i in indices:
            yield self._asked(i, Path.read_bytes)

    def _asked(self, index: int, question: Callable[[Path], T]) -> T:
        path = Path(self.folder, self.files[index])
        try:
            return question(path)
        except OSError as error:
            raise BadImage(f"{path}: {error.strerror}; remove it") from error

    def _decode(self, path: str):
        pixels = decode_image(path, path, self.look)
        if pixels.shape != self.shape:
            raise UserError(
                f"{path} is {size_text(pixels.shape)} and {os.path.basename(self.sample)} is "
                f"{size_text(self.shape)}; set --config.data.image_size"
            )
        return pixels


def class_names(files: list[str]) -> list[str]:
    """Return the sorted top folders of all files; none if there is only one, or a file has none."""
    names = sorted({top_of(file) for file in files})
    return names if len(names) > 1 and names[0] else []


def size_text(shape: tuple) -> str:
    """Format a shape as height x width."""
    return f"{shape[0]}x{shape[1]}"
