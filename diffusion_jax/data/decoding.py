"""Encoded images to uint8 arrays: one kind of pixel, centre crop, resize, and many at once."""

import contextlib
import os
import struct
import warnings
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from diffusion_jax.errors import UserError

MODES = {1: "L", 3: "RGB", 4: "RGBA"}
FORMATS = ("PNG", "JPEG", "WEBP", "BMP")
CHUNK = 256
DAMAGE = (zlib.error, struct.error)


def centre_square(image, size: int):
    """The largest centred square of a Pillow image, resized (bicubic, antialiased) to `size`."""
    from PIL import Image

    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    square = image.crop((left, top, left + side, top + side))
    return square if side == size else square.resize((size, size), Image.Resampling.BICUBIC)


def decode_image(file, name: str, channels: int, image_size: int = 0) -> np.ndarray:
    """One image file, a path or a binary stream, as uint8 [h, w, channels].

    image_size: crop and resize to this square, or 0 to keep the size. EXIF rotation is ignored.
    Raises UserError naming `name` if the file is damaged, too large, or deeper than 8 bits.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(file, formats=FORMATS) as image:
            if image.mode[0] in "IF":
                raise ValueError("its pixels have more than 8 bits")
            pixels = image if image.mode == MODES[channels] else image.convert(MODES[channels])
            array = np.asarray(centre_square(pixels, image_size) if image_size else pixels)
    except UnidentifiedImageError:
        raise UserError(f"{name}: not a readable {', '.join(FORMATS)} image; remove it") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise UserError(
            f"{name}: more than {(Image.MAX_IMAGE_PIXELS or 0) / 1e6:.0f} million pixels; remove it"
        ) from None
    # Pillow reports damage by whatever its decoders run into.
    except (OSError, ValueError, SyntaxError, EOFError, IndexError, *DAMAGE) as error:
        raise UserError(f"{name}: broken image ({error}); remove it") from error
    return array.reshape(*array.shape[:2], channels)


@contextlib.contextmanager
def limited_pixels():
    """Makes Pillow's limit of pixels firm: by itself it only warns, up to twice as many."""
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def check_memory(name: str, needed: int) -> None:
    """Raises UserError if `needed` bytes are more than the machine has available."""
    import psutil

    available = psutil.virtual_memory().available
    if needed > available:
        raise UserError(
            f"{name} needs {needed / 1e9:.1f} GB of memory but {available / 1e9:.1f} GB are "
            "available; set a smaller --config.data.image_size"
        )


def decode_all(
    name: str, size: int, shape: tuple, fill: Callable[[np.ndarray, int, int], None]
) -> np.ndarray:
    """uint8 [size, *shape], made by fill(images, first, last) in threads, a chunk at a time.

    Raises what the first chunk that fails raises, and UserError if memory does not suffice.
    """
    from tqdm import tqdm

    check_memory(name, size * int(np.prod(shape)))
    images = np.empty((size, *shape), np.uint8)
    starts = range(0, size, CHUNK)

    def work(start):
        fill(images, start, min(start + CHUNK, size))

    with limited_pixels(), ThreadPoolExecutor(os.cpu_count()) as pool:
        done = pool.map(work, starts)
        # Short loads stay silent, so that the bar never mixes with the lines of training.
        for _ in tqdm(done, f"decoding {name}", len(starts), leave=False, disable=None, delay=5):
            pass
    return images
