"""Pictures: NumPy in, PNG out."""

import math
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from diffusion_jax.files import replacing

TILE = 64  # pixels that a small image is enlarged towards
DIGIT = 10  # pixels that a digit of a class's name takes beside its row
FRAME_MS, LAST_FRAME_MS = 120, 2000


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


def labelled_grid(images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """One row a class, its number before it; images of a single class make a square.

    Args:
        images: uint8 `[n, h, w, c]`.
        labels: `[n]`.
    """
    classes, counts = np.unique(labels, return_counts=True)
    columns = counts.max() if len(classes) > 1 else math.ceil(math.sqrt(len(images)))
    rows = [_padded(images[labels == each], columns) for each in classes]
    names = np.repeat(classes, [len(row) // columns for row in rows])
    canvas = grid(np.concatenate(rows), columns)
    height = len(canvas) / len(names)
    width = DIGIT * (1 + max(len(str(name)) for name in names))
    captions = Image.new("L", (width, len(canvas)), 255)
    draw, font = ImageDraw.Draw(captions), ImageFont.load_default(14)
    for i, name in enumerate(names):
        middle = ((width + 2) / 2, (i + 0.5) * height)
        draw.text(middle, str(name), fill=0, font=font, anchor="mm")
    beside = np.asarray(captions)[..., None].repeat(images.shape[-1], axis=-1)
    return np.concatenate([beside, canvas], axis=1)


def _padded(images: np.ndarray, columns: int) -> np.ndarray:
    """White images after these, up to whole rows."""
    white = np.full((-len(images) % columns, *images.shape[1:]), 255, np.uint8)
    return np.concatenate([images, white])


def save_film(path: Path, frames: np.ndarray) -> None:
    """A GIF of images `[frames, n, h, w, c]` in [-1, 1] side by side, which rests on the last."""
    pictures = [_picture(grid(to_uint8(images))) for images in frames]
    durations = [FRAME_MS] * (len(pictures) - 1) + [LAST_FRAME_MS]
    more = {"append_images": pictures[1:], "duration": durations, "loop": 0}
    _save(path, pictures[0], "GIF", save_all=True, **more)


def _picture(image: np.ndarray) -> Image.Image:
    return Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)


def save_png(path: Path, image: np.ndarray) -> None:
    """Write one uint8 image `[h, w, c]`, whole or not at all."""
    _save(path, _picture(image), "PNG")


def _save(path: Path, picture: Image.Image, kind: str, **options) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path, "wb") as file:
        picture.save(file, kind, **options)


def save_strips(path: Path, rows: np.ndarray) -> None:
    """One row of pictures an image: `[n, columns, h, w, c]` in [-1, 1]."""
    count, columns = rows.shape[:2]
    save_png(path, grid(to_uint8(rows.reshape(count * columns, *rows.shape[2:])), columns))
