"""Images in NumPy files."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from diffusion_jax.data.array_hints import (
    has_channels_first,
    image_hint,
    is_one_image,
    label_hint,
)
from diffusion_jax.data.dataset import Dataset, Look, Source, choose_split, loaded, own_path
from diffusion_jax.data.decoding import check_memory
from diffusion_jax.errors import UserError

MOST_CLASSES = 65536  # the largest number of classes, unless there are more images
EXPECTED = "expected uint8 images [n, h, w, c] or [n, h, w]"


def open_arrays(split: str, directory: str, look: Look) -> Source:
    """Open the images of a .npz or .npy file, with 256 levels; pickled objects are never read.

    directory: such a file, used as split 'train', or a folder with train.npz and test.npz (or
    .npy). In an .npz the images are `images` or `arr_0`, the labels, if any, `labels` or `arr_1`.
    look is not used: arrays are never resized or converted.

    Raises UserError for anything else, naming the file and what is expected.
    """
    path = own_path("arrays", directory)
    files = split_files(path)
    kind = f"the single file '{path}'" if path.is_file() else f"'{path}'"
    file = files[choose_split(kind, files, split)]
    try:
        images, labels, other = read_arrays(file)
    except UserError:
        raise
    # On damaged files, NumPy's parsers raise all kinds of errors.
    except Exception as error:
        raise UserError(f"{file}: not readable as NumPy arrays ({error}); {EXPECTED}") from error
    try:
        source = loaded(from_arrays(images, labels, levels=256))
    except UserError as error:
        raise UserError(f"{file}: {error}") from error
    unlabelled = (
        f"{file} has no array 'labels' or 'arr_1', only {', '.join(other)}; rename the array of "
        "labels"
        if other and labels is None
        else ""
    )
    return replace(source, splits=tuple(files), unlabelled=unlabelled)


def from_arrays(images: Any, labels: Any = None, levels: int = 256, classes: int = 0) -> Dataset:
    """Check images and labels in memory, and make a data set of them.

    Args:
        images: uint8 `[n, h, w, c]` or `[n, h, w]`.
        labels: whole numbers `[n]` from 0, or None.
        levels: how many values a pixel can take.
        classes: how many classes there are at least; the labels may show more.

    Raises:
        UserError: they have another type or shape, or values outside their range.
    """
    given = np.asarray(images)
    if given.dtype.kind == "f" and not np.all(finite := np.isfinite(given)):
        first = np.argwhere(~finite)[0].tolist()
        raise UserError(f"images are not finite, first at index {first}; {EXPECTED}")
    odd = has_channels_first(given.shape) or is_one_image(given.shape)
    if given.dtype != np.uint8 or given.ndim not in (3, 4) or odd:
        hint = image_hint(given)
        found = f"images are {given.dtype} {list(given.shape)}; {EXPECTED}"
        raise UserError(f"{found}; {hint}" if hint else found)
    given = given[..., None] if given.ndim == 3 else given
    if given.size == 0:
        raise UserError(f"holds no images; {EXPECTED}")
    if isinstance(levels, bool) or not isinstance(levels, int) or not 2 <= levels <= 256:
        raise UserError(f"levels is {levels!r:.50}; it must be a whole number, 2 to 256")
    if labels is None:
        return Dataset(given, np.zeros(len(given), np.int32), levels, classes=0)
    numbers = np.asarray(labels)
    if not _are_classes(numbers, len(given)):
        hint = label_hint(numbers, len(given))
        found = (
            f"labels are {numbers.dtype} {list(numbers.shape)}; expected whole numbers from 0, "
            f"of shape [{len(given)}]"
        )
        raise UserError(f"{found}; {hint}" if hint else found)
    classes = max(classes, int(numbers.max()) + 1)
    return Dataset(given, numbers.astype(np.int32), levels, classes)


def _are_classes(labels: np.ndarray, size: int) -> bool:
    whole = labels.dtype.kind in "iu" and labels.shape == (size,)
    return whole and labels.min() >= 0 and labels.max() < max(MOST_CLASSES, size)


def split_files(path: Path) -> dict[str, Path]:
    """Return the file of each split: `path` itself as 'train', or those in the folder.

    Raises:
        UserError: there is none.
    """
    if path.is_file():
        return {"train": path}
    if not path.is_dir():
        raise UserError(f"--config.data.dir='{path}' is neither a .npz or .npy file nor a folder")
    files = {
        name: path / f"{name}{extension}"
        for name in ("test", "train")
        for extension in (".npy", ".npz")
        if (path / f"{name}{extension}").is_file()
    }
    if not files:
        raise UserError(f"'{path}' holds neither train.npz nor train.npy")
    return files


def read_arrays(file: Path) -> tuple[np.ndarray, np.ndarray | None, list[str]]:
    """Return the images, the labels if the file has them, and the names of the other arrays."""
    content = np.load(file, allow_pickle=False)
    if isinstance(content, np.ndarray):
        return content, None, []
    with content:
        needed = sum(member.file_size for member in content.zip.infolist())
        check_memory(str(file), needed, "store its images as files in a folder")
        labels = next((content[key] for key in ("labels", "arr_1") if key in content), None)
        images = next((content[key] for key in ("images", "arr_0") if key in content), None)
        if images is None:
            raise ValueError(f"no array 'images' or 'arr_0' among {sorted(content)}")
        for each in (images, labels):
            if each is not None and not isinstance(each, np.ndarray):
                raise ValueError("a member is not an array")
        read = {"labels", "arr_1"} if labels is not None else set()
        return images, labels, sorted({*content} - read - {"images", "arr_0"})
