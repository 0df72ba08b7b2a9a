"""Decode images to uint8 arrays: pixel format, centre crop, resizing, many in parallel."""

import contextlib
import math
import os
import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from diffusion_jax.data.dataset import Dataset, Look, Read, Source
from diffusion_jax.data.unreadable import BadImage, all_bad, bad_images
from diffusion_jax.errors import UserError

PIL_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
CHUNK_IMAGES = 256  # decoded by one thread at a time
MAX_PIXELS = 89_000_000
DAMAGE = (zlib.error, struct.error)


def centre_square(image, size: int):
    """Crop a Pillow image to its largest centred square, and resize it (bicubic) to `size`."""
    from PIL import Image

    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    square = image.crop((left, top, left + side, top + side))
    return square if side == size else square.resize((size, size), Image.Resampling.BICUBIC)


class Unreadable(ValueError):
    """An image file that is missing, damaged, too large, or not of 8 bits: the text says which."""

    def __init__(self, reason: str, remedy: str = "remove it"):
        super().__init__(reason)
        self.remedy = remedy


def check_background(colour: str) -> None:
    """Raise a `UserError` if the text is no colour that Pillow knows, and not empty."""
    from PIL import ImageColor

    try:
        ImageColor.getrgb(colour or "white")
    except ValueError as error:
        raise UserError(
            f"config.data.background '{colour}' is no colour; give one by name, such as white or "
            "black, or as #rrggbb"
        ) from error


def read_pixels(file, look: Look) -> np.ndarray:
    """Read one image file, a path or a binary stream, as uint8 [h, w, channels].

    Raises Unreadable. An image of more than MAX_PIXELS is not decoded at all.
    """
    with opened(file) as image:
        return as_pixels(image, look)


@contextlib.contextmanager
def opened(file):
    """Open an image file with Pillow; any error of the file, also of decoding it, is Unreadable."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(file, formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise Image.DecompressionBombError
            yield image
    except UnidentifiedImageError:
        raise Unreadable(f"not a readable {', '.join(FORMATS)} image") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        large = f"more than {MAX_PIXELS / 1e6:.0f} million pixels"
        raise Unreadable(large, "shrink it") from None
    except FileNotFoundError:
        raise Unreadable("there is no such file", "restore it") from None
    except Unreadable:
        raise
    # On damaged files, Pillow's decoders raise all kinds of errors.
    except (OSError, ValueError, SyntaxError, EOFError, IndexError, MemoryError, *DAMAGE) as error:
        raise Unreadable(f"broken image ({error})") from error


def as_pixels(image, look: Look) -> np.ndarray:
    """Decode a Pillow image that `opened` has opened, to uint8 [h, w, channels]."""
    from PIL import ImageOps

    if image.mode[0] in "IF":
        raise Unreadable(
            f"its pixels have more than 8 bits (mode {image.mode})",
            "convert it to 8 bits, in NumPy by (pixels / 257).astype(np.uint8)",
        )
    upright = ImageOps.exif_transpose(image) if look.exif else image
    opaque = look.background and look.channels != 4 and upright.has_transparency_data
    mode = PIL_MODES[look.channels]
    pixels = on_background(upright, look.background) if opaque else upright
    pixels = pixels if pixels.mode == mode else pixels.convert(mode)
    array = np.asarray(centre_square(pixels, look.size) if look.size else pixels)
    return array.reshape(*array.shape[:2], look.channels)


def on_background(image, colour: str):
    """Put a Pillow image with transparency on one colour.

    Raises:
        Unreadable: nothing of it is visible.
    """
    from PIL import Image

    rgba = image.convert("RGBA")
    lowest, highest = rgba.getchannel("A").getextrema()
    if highest == 0:
        raise Unreadable("it is entirely transparent")
    if lowest == 255:
        return rgba.convert("RGB")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, colour), rgba).convert("RGB")


def decode_image(file, name: str, look: Look) -> np.ndarray:
    """Read an image of a data set by read_pixels; on failure, raise a BadImage with `name`."""
    try:
        return read_pixels(file, look)
    except Unreadable as error:
        raise BadImage(f"{name}: {error}; {error.remedy}") from error


@contextlib.contextmanager
def limited_pixels():
    """Enforce Pillow's pixel limit: up to twice the limit, Pillow itself only warns."""
    with warnings.catch_warnings():
        set_filters()
        yield


def set_filters() -> None:
    """Make Pillow's warning of large images an error, and drop its advice on palettes."""
    from PIL import Image

    warnings.simplefilter("error", Image.DecompressionBombWarning)
    warnings.filterwarnings("ignore", "Palette images with Transparency")


def check_memory(name: str, needed: int, remedy: str) -> None:
    """Raise UserError if `needed` bytes are more than the machine has available."""
    import psutil

    available = psutil.virtual_memory().available
    if needed > available:
        raise UserError(
            f"{name} needs {needed / 1e9:.1f} GB of memory but {available / 1e9:.1f} GB are "
            f"available; {remedy}"
        )


def encoded(name: str, shape: tuple, classes: int, size: int, read: Read) -> Source:
    """Return a source of `size` encoded 8-bit images; load() decodes chunks of them in threads.

    load() reads all images before it raises one BadImage that lists those that cannot be read. It
    raises any other error of `read` at once, and UserError if memory is too small.
    """

    def load_by(read: Read, size: int) -> Dataset:
        from tqdm import tqdm

        remedy = "set --config.data.stream=True to train, or a smaller --config.data.image_size"
        check_memory(name, size * math.prod(shape), remedy)
        images, labels = np.empty((size, *shape), np.uint8), np.empty(size, np.int32)
        starts = range(0, size, CHUNK_IMAGES)

        def work(start) -> list[str]:
            part = range(start, min(start + CHUNK_IMAGES, size))
            place = slice(part.start, part.stop)
            try:
                images[place], labels[place] = read(part)
            except BadImage as error:
                return bad_images(lambda i: read([i]), part) or [str(error)]
            return []

        with limited_pixels(), ThreadPoolExecutor(os.cpu_count()) as pool:
            done = pool.map(work, starts)
            # Short loads stay silent, so that the bar never mixes with the lines of training.
            bar = tqdm(done, f"decoding {name}", len(starts), leave=False, disable=None, delay=5)
            bad = [each for found in bar for each in found]
        if bad:
            raise all_bad(bad, size)
        return Dataset(images, labels, 256, classes)

    return Source(shape, 256, classes, size, read, load_by)
