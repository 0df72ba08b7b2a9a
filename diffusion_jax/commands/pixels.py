"""Pictures that a user hands in, checked against the images of a run."""

from pathlib import Path

import numpy as np

from diffusion_jax.data.decoding import Unreadable, limited_pixels, read_pixels
from diffusion_jax.errors import UserError


def read_image(path: Path, shape: tuple[int, int, int]) -> np.ndarray:
    """A picture as float32 `[h, w, c]` in [-1, 1], turned into grey or colour as the run needs.

    Raises:
        UserError: it cannot be read, or has another size.
    """
    return _read(path, shape, 3 if shape[-1] == 3 else 1) / 127.5 - 1.0


def read_mask(path: Path, shape: tuple[int, int, int]) -> np.ndarray:
    """A black and white picture as float32 `[h, w, 1]`: 1 where it is white.

    Raises:
        UserError: it cannot be read, or has another size.
    """
    return np.rint(_read(path, shape, 1) / 255.0)


def _read(path: Path, shape: tuple[int, int, int], channels: int) -> np.ndarray:
    try:
        with limited_pixels():
            pixels = read_pixels(path, channels)
    except Unreadable as error:
        raise UserError(f"cannot read the picture {path}: {error}") from error
    height, width = pixels.shape[:2]
    if (height, width) != shape[:2]:
        raise UserError(
            f"{path} is {width} pixels wide and {height} high; the run's images are "
            f"{shape[1]} wide and {shape[0]} high"
        )
    return pixels.astype(np.float32)
