"""Pictures: NumPy in, PNG out."""

import math
from pathlib import Path

import numpy as np
from PIL import Image

TILE = 64  # pixels that a small image is enlarged towards


def to_uint8(x: np.ndarray) -> np.ndarray:
    """Images in [-1, 1] as bytes, values outside held at the ends."""
    return np.rint(np.clip((np.asarray(x, np.float32) + 1.0) * 127.5, 0.0, 255.0)).astype(np.uint8)


def grid(images: np.ndarray, columns: int | None = None) -> np.ndarray:
    """Lay uint8 images `[n, h, w, c]` out in rows, small ones enlarged by a whole factor.

    Args:
        columns: images in a row; by default the nearest to a square.
    """
    n, h, w, c = images.shape
    columns = columns or math.ceil(math.sqrt(n))
    rows = math.ceil(n / columns)
    factor = max(1, TILE // max(h, w))
    gap = max(1, factor // 4)
    tile_h, tile_w = h * factor + gap, w * factor + gap
    canvas = np.full((rows * tile_h + gap, columns * tile_w + gap, c), 255, np.uint8)
    for i, image in enumerate(images):
        top, left = i // columns * tile_h + gap, i % columns * tile_w + gap
        enlarged = image.repeat(factor, axis=0).repeat(factor, axis=1)
        canvas[top : top + h * factor, left : left + w * factor] = enlarged
    return canvas


def save_png(path: Path, image: np.ndarray) -> None:
    """Write one uint8 image `[h, w, c]`, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(part, format="PNG")
    part.replace(path)


def save_strips(path: Path, rows: np.ndarray) -> None:
    """One row of pictures an image: `[n, columns, h, w, c]` in [-1, 1]."""
    count, columns = rows.shape[:2]
    save_png(path, grid(to_uint8(rows.reshape(count * columns, *rows.shape[2:])), columns))
