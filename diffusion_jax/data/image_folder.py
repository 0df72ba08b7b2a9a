"""A folder of image files, with or without class subfolders."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from diffusion_jax.data.dataset import Source, choose_split, own_path
from diffusion_jax.data.decoding import decode_image, encoded, limited_pixels
from diffusion_jax.errors import UserError

EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
SPLITS = ("train", "test")


def open_image_folder(split: str, directory: str, image_size: int, channels: int) -> Source:
    """Open the images under `directory`, sorted by path, with 256 levels.

    DIR/train and DIR/test are the splits if either exists; otherwise everything is 'train'.
    Subfolders of a split are classes, if there are two or more and all images lie in them.
    image_size: crop and resize to this square; 0 keeps the size, which all must then share.
    channels: 3 or 0 for RGB, 1 for gray.

    Raises UserError for a folder without images, a missing split, or a broken image.
    """
    channels = channels or 3
    if channels not in (1, 3):
        raise UserError(f"--config.data.channels={channels}: images have 1 or 3 channels")
    folders = find_splits(own_path("image_folder", directory), split)
    listed = {name: image_files(place) for name, place in folders.items()}
    folder, files = folders[split], listed[split]
    if not files:
        raise UserError(f"'{folder}' holds no images ({', '.join(EXTENSIONS)})")
    with limited_pixels():
        first = os.path.join(folder, files[0])
        shape = decode_image(first, first, channels, image_size).shape
    names = class_names([file for every in listed.values() for file in every])
    numbers = {name: number for number, name in enumerate(names)}
    labels = np.array([numbers.get(class_of(file), 0) for file in files], np.int32)
    read = Files(str(folder), files, labels, shape, bool(image_size))
    return encoded(f"'{folder}'", shape, len(names), len(files), read)


class Files(NamedTuple):
    """Reads image files by their paths within `folder`; shape is what all images must have."""

    folder: str
    files: list[str]
    labels: np.ndarray
    shape: tuple[int, int, int]
    resize: bool

    def __call__(self, indices):
        images = np.empty((len(indices), *self.shape), np.uint8)
        for place, i in enumerate(indices):
            images[place] = self._decode(os.path.join(self.folder, self.files[i]))
        return images, self.labels[indices]

    def _decode(self, path: str):
        height, _, channels = self.shape
        pixels = decode_image(path, path, channels, height if self.resize else 0)
        if pixels.shape != self.shape:
            raise UserError(
                f"{path} is {size_text(pixels.shape)} and {os.path.basename(self.files[0])} is "
                f"{size_text(self.shape)}; set --config.data.image_size"
            )
        return pixels


def find_splits(root: Path, split: str) -> dict[str, Path]:
    """Return the folder of each split under `root`; `split` must be one of them."""
    if not root.is_dir():
        raise UserError(f"--config.data.dir='{root}' is not a folder of images")
    folders = {name: root / name for name in SPLITS if (root / name).is_dir()}
    if not folders:
        if split == "test":
            raise UserError(
                f"'{root}' has no split 'test'; lay it out as {root}/train and {root}/test"
            )
        folders = {"train": root}
    choose_split(f"'{root}'", folders, split)
    return folders


def image_files(root: Path) -> list[str]:
    """Return the paths of all images in `root`, sorted by their parts, without hidden files.

    A link to a folder that contains it is not followed. Raises UserError for a folder
    that cannot be read, or an image that is not a regular file.
    """
    found, waiting = [], [("", frozenset())]
    while waiting:
        inside, above = waiting.pop()
        place = os.path.join(root, inside)
        real = os.path.realpath(place)
        if real in above:
            continue
        try:
            with os.scandir(place) as listing:
                entries = list(listing)
        except OSError as error:
            raise UserError(f"cannot read the folder '{place}': {error.strerror}") from error
        for entry in entries:
            path = os.path.join(inside, entry.name)
            if holds(entry.is_dir):
                waiting.append((path, above | {real}))
            elif entry.name.lower().endswith(EXTENSIONS) and not entry.name.startswith("."):
                if not holds(entry.is_file):
                    raise UserError(f"{entry.path}: not a regular file; remove it")
                found.append(path)
    return sorted(found, key=lambda path: path.split(os.sep))


def holds(question: Callable[[], bool]) -> bool:
    """Ask about a folder's entry; return False if it cannot be resolved, as a link to itself."""
    try:
        return question()
    except OSError:
        return False


def class_names(files: list[str]) -> list[str]:
    """Return the sorted top folders of all files; none if there is only one, or a file has none."""
    names = sorted({class_of(file) for file in files})
    return names if len(names) > 1 and all(os.sep in file for file in files) else []


def class_of(file: str) -> str:
    """Return the first part of a path within a split."""
    return file.partition(os.sep)[0]


def size_text(shape: tuple) -> str:
    """Format a shape as height x width."""
    return f"{shape[0]}x{shape[1]}"
