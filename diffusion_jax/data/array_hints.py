"""Guesses at what arrays of the wrong type or shape are, and the NumPy code to convert them."""

import math

import numpy as np

from diffusion_jax.data.decoding import PIL_MODES

CHANNELS = tuple(PIL_MODES)  # of pictures
LEAST_SIDE = 8  # pixels


def image_hint(images: np.ndarray) -> str:
    """Return what the images look like and how to convert them; '' if that is not clear."""
    looks, line = _layout(images)
    kind, line = _kind(images, line)
    found = " with ".join(filter(None, (looks, kind)))
    return f"they look like {found}: use {line}" if found else ""


def has_channels_first(shape: tuple[int, ...]) -> bool:
    """Return whether a shape looks like square images [n, c, h, w]."""
    square = len(shape) == 4 and shape[2] == shape[3] >= LEAST_SIDE
    return square and shape[1] in CHANNELS


def is_one_image(shape: tuple[int, ...]) -> bool:
    """Return whether a shape looks like a single colour image [h, w, c]."""
    if len(shape) != 3 or min(shape[:2]) < LEAST_SIDE:
        return False
    return shape[2] == 3 or (shape[2] == 4 and shape[0] == shape[1])


def _layout(images: np.ndarray) -> tuple[str, str]:
    shape = images.shape
    if has_channels_first(shape):
        return "[n, c, h, w]", "images.transpose(0, 2, 3, 1)"
    if is_one_image(shape):
        return "one image [h, w, c] and not grey ones, images[..., None]", "images[None]"
    if len(shape) == 2:
        for channels in CHANNELS:
            side = math.isqrt(shape[1] // channels)
            if side >= LEAST_SIDE and channels * side * side == shape[1]:
                if channels == 1:
                    return "flattened images", f"images.reshape(-1, {side}, {side})"
                flat = f"images.reshape(-1, {channels}, {side}, {side}).transpose(0, 2, 3, 1)"
                return (
                    f"flattened images (not images.reshape(-1, {side}, {side}, {channels}))",
                    flat,
                )
    return "", "images"


def _kind(images: np.ndarray, line: str) -> tuple[str, str]:
    if images.dtype == np.uint8 or images.size == 0 or images.dtype.kind not in "fiub":
        return "", line
    low, high = images.min(), images.max()
    if images.dtype.kind == "b":
        return "Boolean values", f"255 * {line}.astype(np.uint8)"
    if images.dtype.kind == "f" and low >= 0 and high <= 1:
        return "values in [0, 1]", f"np.rint(255 * {line}).astype(np.uint8)"
    if images.dtype.kind == "f" and low >= -1 and high <= 1:
        return "values in [-1, 1]", f"np.rint(127.5 * ({line} + 1)).astype(np.uint8)"
    if low >= 0 and high <= 255:
        rounded = f"np.rint({line})" if images.dtype.kind == "f" else line
        return "values in 0..255", f"{rounded}.astype(np.uint8)"
    if low >= 0 and high <= 65535:
        return "16-bit values", f"np.rint({line} / 257).astype(np.uint8)"
    return "", line


def label_hint(labels: np.ndarray, size: int) -> str:
    """Return what labels of `size` images look like and how to convert them; '' if unclear."""
    numbered = "np.unique(labels, return_inverse=True)[1]"
    if labels.shape == (size, 1):
        return "they look like a column: use labels[:, 0]"
    if labels.ndim == 2 and len(labels) == size and labels.dtype.kind in "fiub":
        one_hot = np.all((labels == 0) | (labels == 1)) and np.all(labels.sum(1) == 1)
        return "they look one-hot: use labels.argmax(1)" if one_hot else ""
    if labels.ndim != 1 or len(labels) != size:
        return f"there are {size} images"
    if labels.dtype.kind in "USO":
        return f"they look like names: use {numbered}"
    if labels.dtype.kind == "b" or (labels.dtype.kind == "f" and np.all(labels == np.rint(labels))):
        return "they look like whole numbers: use labels.astype(np.int32)"
    if labels.dtype.kind in "iu" and labels.min() < 0:
        first = int(np.flatnonzero(labels < 0)[0])
        return f"label {first} is {labels[first]}: use {numbered}"
    if labels.dtype.kind in "iu":
        first = int(labels.argmax())
        return f"label {first} is {labels[first]}, which implies too many classes: use {numbered}"
    return ""
