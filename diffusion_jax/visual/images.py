"""Pictures: NumPy in, PNG out."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from diffusion_jax.files import replacing

PICTURE_CHANNELS = (1, 3, 4)  # grey, RGB, RGBA
TILE = 64  # pixels; small images are enlarged to at most this side
CAPTION = 18  # most characters of a row's class
FRAME_MS, LAST_FRAME_MS = 120, 2000


def to_uint8(x: np.ndarray) -> np.ndarray:
    """Convert images in [-1, 1] to uint8, with values outside clipped."""
    return np.rint(np.clip((np.asarray(x, np.float32) + 1.0) * 127.5, 0.0, 255.0)).astype(np.uint8)


def as_pictures(images: np.ndarray) -> np.ndarray:
    """Return images that can be shown; any not grey, RGB or RGBA as one grey tile per channel.

    Args:
        images: uint8 `[n, h, w, c]`.

    Returns:
        The same, or `[n, h, c w + c - 1, 1]` with white lines between the channels.
    """
    n, h, w, c = images.shape
    if c in PICTURE_CHANNELS:
        return images
    tiles = np.full((n, h, c, w + 1), 255, np.uint8)
    tiles[..., :w] = np.moveaxis(images, 3, 2)
    return tiles.reshape(n, h, c * (w + 1), 1)[:, :, :-1]


def grid(images: np.ndarray, columns: int | None = None) -> np.ndarray:
    """Arrange uint8 images `[n, h, w, c]` in rows, small ones enlarged by an integer factor.

    Args:
        columns: images per row; by default the grid is as square as possible.
    """
    images = as_pictures(images)
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


def labelled_grid(images: np.ndarray, labels: np.ndarray, names: Sequence[str] = ()) -> np.ndarray:
    """Arrange images in one row per class, labelled; a single class in a square.

    Args:
        images: uint8 `[n, h, w, c]`.
        labels: `[n]`.
        names: of the classes; a class without a name in printable ASCII is labelled by its number.
    """
    images = as_pictures(images)
    classes, counts = np.unique(labels, return_counts=True)
    columns = counts.max() if len(classes) > 1 else math.ceil(math.sqrt(len(images)))
    rows = [_padded(images[labels == each], columns) for each in classes]
    texts = np.repeat(
        [_caption(each, names) for each in classes], [len(row) // columns for row in rows]
    )
    canvas, font = grid(np.concatenate(rows), columns), ImageFont.load_default(14)
    height = len(canvas) / len(texts)
    width = round(10 + max(font.getlength(text) for text in texts))
    captions = Image.new("L", (width, len(canvas)), 255)
    draw = ImageDraw.Draw(captions)
    for i, text in enumerate(texts):
        draw.text(((width + 2) / 2, (i + 0.5) * height), text, fill=0, font=font, anchor="mm")
    beside = np.asarray(captions)[..., None].repeat(images.shape[-1], axis=-1)
    return np.concatenate([beside, canvas], axis=1)


def _caption(label: int, names: Sequence[str]) -> str:
    name = names[label] if len(names) else ""
    return name[:CAPTION] if name.isascii() and name.isprintable() and name else str(label)


def _padded(images: np.ndarray, columns: int) -> np.ndarray:
    """Append white images to complete the last row."""
    white = np.full((-len(images) % columns, *images.shape[1:]), 255, np.uint8)
    return np.concatenate([images, white])


def save_film(path: Path, frames: np.ndarray) -> None:
    """Write a GIF of images `[frames, n, h, w, c]` in [-1, 1], which pauses on the last frame."""
    pictures = [_picture(grid(to_uint8(images))) for images in frames]
    durations = [FRAME_MS] * (len(pictures) - 1) + [LAST_FRAME_MS]
    more = {"append_images": pictures[1:], "duration": durations, "loop": 0}
    _save(path, pictures[0], "GIF", save_all=True, **more)


def _picture(image: np.ndarray) -> Image.Image:
    shown = as_pictures(image[None])[0]
    return Image.fromarray(shown[..., 0] if shown.shape[-1] == 1 else shown)


def save_png(path: Path, image: np.ndarray) -> None:
    """Write one uint8 image `[h, w, c]` atomically."""
    _save(path, _picture(image), "PNG")


def _save(path: Path, picture: Image.Image, kind: str, **options) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path, "wb") as file:
        picture.save(file, kind, **options)


def save_strips(path: Path, rows: np.ndarray) -> None:
    """Write a picture with one row per image: `[n, columns, h, w, c]` in [-1, 1]."""
    count, columns = rows.shape[:2]
    save_png(path, grid(to_uint8(rows.reshape(count * columns, *rows.shape[2:])), columns))
