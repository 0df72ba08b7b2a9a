"""Pictures that a user hands in, checked against the images of a run."""

from pathlib import Path

import numpy as np
from PIL import Image

from diffusion_jax.errors import UserError


def read_image(path: Path, shape: tuple[int, int, int]) -> np.ndarray:
    """A picture as float32 `[h, w, c]` in [-1, 1], turned into grey or colour as the run needs.

    Raises:
        UserError: it cannot be read, or has another size.
    """
    return _read(path, shape, "RGB" if shape[-1] == 3 else "L") / 127.5 - 1.0


def read_mask(path: Path, shape: tuple[int, int, int]) -> np.ndarray:
    """A black and white picture as float32 `[h, w, 1]`: 1 where it is white.

    Raises:
        UserError: it cannot be read, or has another size.
    """
    return np.rint(_read(path, shape, "L") / 255.0)


def _read(path: Path, shape: tuple[int, int, int], mode: str) -> np.ndarray:
    try:
        with Image.open(path) as picture:
            deep = picture.mode.startswith(("I", "F"))
            pixels = np.asarray(picture.convert(mode), np.float32)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(f"cannot read the picture {path}: {error}") from error
    if deep:
        raise UserError(f"{path} has more than 8 bits a channel; save it with 8")
    height, width = pixels.shape[:2]
    if (height, width) != shape[:2]:
        raise UserError(
            f"{path} is {width} pixels wide and {height} high; the run's images are "
            f"{shape[1]} wide and {shape[0]} high"
        )
    return pixels.reshape(height, width, -1)
