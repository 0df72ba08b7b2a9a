"""A folder of image files, with or without class subfolders."""

import os
from pathlib import Path

import numpy as np

from diffusion_jax.data.dataset import Dataset, Source, choose_split, own_path
from diffusion_jax.data.decoding import decode_all, decode_image, limited_pixels
from diffusion_jax.errors import UserError

EXTENSIONS = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
SPLITS = ("train", "test")


def open_image_folder(split: str, directory: str, image_size: int, channels: int) -> Source:
    """The images under `directory`, in the sorted order of their paths, with 256 levels.

    DIR/train and DIR/test are the splits if either exists; otherwise everything is 'train'.
    Subfolders of a split are classes, if there are two or more and all images lie in them.
    image_size: crop and resize to this square; 0 keeps the size, which all must then share.
    channels: 3 or 0 for RGB, 1 for gray.

    Raises UserError for a folder without images, a split that is not there, or a broken image.
    """
    channels = channels or 3
    if channels not in (1, 3):
        raise UserError(f"--config.data.channels={channels}: images have 1 or 3 channels")
    folders = find_splits(own_path("image_folder", directory), split)
    names = class_names(folders)
    folder = folders[split]
    files = image_files(folder)
    if not files:
        raise UserError(f"'{folder}' holds no images ({', '.join(EXTENSIONS)})")
    with limited_pixels():
        shape = decode_image(files[0], str(files[0]), channels, image_size).shape

    def fill(images, first, last):
        for i in range(first, last):
            pixels = decode_image(files[i], str(files[i]), channels, image_size)
            if pixels.shape != shape:
                raise UserError(
                    f"{files[i]} is {size_text(pixels.shape)} and {files[0].name} is "
                    f"{size_text(shape)}; set --config.data.image_size"
                )
            images[i] = pixels

    def load():
        images = decode_all(f"'{folder}'", len(files), shape, fill)
        labels = np.zeros(len(files), np.int32)
        if names:
            labels[:] = [names.index(file.relative_to(folder).parts[0]) for file in files]
        return Dataset(images, labels, 256, len(names))

    return Source(shape, 256, len(names), len(files), load)


def find_splits(root: Path, split: str) -> dict[str, Path]:
    """The folder of each split under `root`, of which `split` must be one."""
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


def image_files(folder: Path) -> list[Path]:
    """The paths of all images under `folder`, sorted part by part; hidden files are left out."""
    files = [
        Path(place) / name
        for place, _, names in os.walk(folder, followlinks=True)
        for name in names
        if name.lower().endswith(EXTENSIONS) and not name.startswith(".")
    ]
    return sorted(files)


def class_names(folders: dict[str, Path]) -> list[str]:
    """The sorted classes that all splits share; none if images lie outside subfolders."""
    places = [
        file.relative_to(folder).parts
        for folder in folders.values()
        for file in image_files(folder)
    ]
    names = sorted({parts[0] for parts in places})
    return names if len(names) > 1 and all(len(parts) > 1 for parts in places) else []


def size_text(shape: tuple) -> str:
    """Height x width as a person writes it."""
    return f"{shape[0]}x{shape[1]}"
