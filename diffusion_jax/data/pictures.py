"""Pictures that steer sampling: images to start from, and masks."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from diffusion_jax.data.dataset import Look
from diffusion_jax.data.decoding import PIL_MODES, Unreadable, limited_pixels, read_pixels
from diffusion_jax.errors import UserError, counted


def read_image(path: Path, shape: tuple[int, int, int], background: str = "white") -> np.ndarray:
    """Read a picture as float32 `[h, w, c]` in [-1, 1], in grey or colour as the run needs.

    Raises:
        UserError: it cannot be read, or has another size, or the run's images are no pictures.
    """
    if shape[-1] not in PIL_MODES:
        raise UserError(
            f"the run's images have {counted(shape[-1], 'channel')}, and picture files have 1, 3 "
            "or 4; in Python, Run.sample takes arrays instead"
        )
    look = Look(shape[-1], background=background)
    return _read_sized(path, shape, look) / 127.5 - 1.0


class Mask(NamedTuple):
    """A mask, float32 `[h, w, 1]`, 1 where the image is repainted; and what that area is."""

    repainted: np.ndarray
    area: str


def read_mask(path: Path, shape: tuple[int, int, int]) -> Mask:
    """Read the area to repaint: where the picture is transparent, or else where it is white.

    Raises:
        UserError: the picture cannot be read, has another size, or selects nothing or everything.
    """
    alpha = _read_sized(path, shape, Look(4))[..., 3:]
    if alpha.min() < alpha.max():
        mask = Mask(1.0 - np.rint(alpha / 255.0), "transparent")
    else:
        mask = Mask(np.rint(_read_sized(path, shape, Look(1, background="")) / 255.0), "white")
    if mask.repainted.min() == mask.repainted.max():
        what = "everything" if mask.repainted.max() else "nothing"
        raise UserError(
            f"the mask {path} selects {what}; make the area to repaint white or transparent, and "
            "the rest black or opaque"
        )
    return mask


def _read_sized(path: Path, shape: tuple[int, int, int], look: Look) -> np.ndarray:
    try:
        with limited_pixels():
            pixels = read_pixels(path, look)
    except Unreadable as error:
        raise UserError(f"cannot read the picture {path}: {error}") from error
    height, width = pixels.shape[:2]
    if (height, width) != shape[:2]:
        raise UserError(
            f"{path} is {width} pixels wide and {height} high; the run's images are "
            f"{shape[1]} wide and {shape[0]} high"
        )
    return pixels.astype(np.float32)
