"""Thumbnails of a few images of a data set, evenly spaced."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from diffusion_jax.data.dataset import Dataset, Look
from diffusion_jax.data.decoding import PIL_MODES, centre_square, decode_image

MOST, ROW = 100, 12  # images on a sheet, and in the row of a class
SIDE = 64  # pixels, at most


class Sheet(NamedTuple):
    """Some images of one split, uint8 [n, h, w, c], and their classes [n]."""

    split: str
    images: np.ndarray
    labels: np.ndarray


def chosen(labels: np.ndarray) -> np.ndarray:
    """Choose evenly spaced images: of all, or of each class if there are several.

    Args:
        labels: `[n]`.

    Returns:
        Their indices, at most MOST.
    """
    classes = np.unique(labels)
    shown = classes[_evenly(len(classes), MOST)]
    each = min(ROW, MOST // len(shown)) if len(shown) > 1 else MOST
    rows = [np.flatnonzero(labels == label) for label in shown]
    return np.concatenate([row[_evenly(len(row), each)] for row in rows])


def _evenly(count: int, most: int) -> np.ndarray:
    return np.linspace(0, count - 1, min(count, most)).astype(int)


def sheet_of_files(split: str, paths: Sequence[str], labels: np.ndarray, look: Look) -> Sheet:
    """Read some of the files as training would, but in squares of at most SIDE pixels."""
    index = chosen(labels)
    small = look._replace(size=min(look.size or SIDE, SIDE))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        images = pool.map(lambda path: decode_image(path, path, small), [paths[i] for i in index])
        return Sheet(split, np.stack(list(images)), labels[index])


def sheet_of_arrays(split: str, data: Dataset) -> Sheet:
    """Take some of the images; those of more than SIDE pixels are cropped and resized."""
    from PIL import Image

    index = chosen(data.labels)
    images = data.images[index]
    if images.shape[-1] not in PIL_MODES:
        images = images[:, :SIDE, :SIDE]  # no pictures, which could be resized
    elif max(images.shape[1:3]) > SIDE:
        planes = images[..., 0] if images.shape[-1] == 1 else images
        squares = [centre_square(Image.fromarray(each), SIDE) for each in planes]
        images = np.stack([np.asarray(each) for each in squares])
        images = images.reshape(*images.shape[:3], -1)
    return Sheet(split, images, data.labels[index])
