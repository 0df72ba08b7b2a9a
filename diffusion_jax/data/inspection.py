"""What a user's data holds, without training: sizes, modes, classes, duplicates, broken files."""

import hashlib
import os
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from diffusion_jax.data.arrays import open_arrays, split_files
from diffusion_jax.data.contact_sheet import Sheet, sheet_of_arrays, sheet_of_files
from diffusion_jax.data.dataset import Look
from diffusion_jax.data.decoding import Unreadable, as_pixels, limited_pixels, opened
from diffusion_jax.data.folder_listing import (
    SPLITS,
    Listing,
    find_splits,
    left_out_note,
    list_folder,
    top_of,
)
from diffusion_jax.data.image_folder import class_names
from diffusion_jax.errors import UserError

CHUNK = 32  # files that one thread looks at
ORIENTATION = 0x0112  # EXIF tag; 1 is upright


class Item(NamedTuple):
    """One image.

    name: path in the folder, or as in 'train[3]'.
    split, label: of training; the split is '' if the layout is refused.
    mode: Pillow's, if the file could be opened; '' for arrays.
    traits: `animated`, `rotated` by EXIF, `transparent`.
    size: (width, height), upright.
    digest: hash of the pixels as training sees them, uncropped.
    fault: why the image cannot be read; '' if it can.
    """

    name: str
    split: str
    label: int
    mode: str = ""
    traits: tuple[str, ...] = ()
    size: tuple[int, int] = (0, 0)
    digest: bytes = b""
    fault: str = ""


class Inspection(NamedTuple):
    """What was found.

    classes: names of the classes by number; empty if there are none.
    left_out: number of files that are not read, and `note`, a line on them.
    refused: why training refuses the layout; '' if it does not.
    levels: number of pixels at each value 0..255, of arrays only.
    sheet: None if no image can be read.
    """

    items: list[Item]
    classes: list[str]
    left_out: int = 0
    note: str = ""
    refused: str = ""
    levels: np.ndarray | None = None
    sheet: Sheet | None = None


def inspect_folder(root: Path, look: Look) -> Inspection:
    """Decode every image under `root` once, in threads, and keep no pixels but the sheet's.

    Args:
        look: how training would see the images, with 1 or 3 channels.

    Raises:
        UserError: a folder cannot be read, or an image is not a regular file.
    """
    listing = list_folder(root)
    places, refused = _places(root, listing)
    classes = class_names([inside for _, inside in places])
    numbers = {name: number for number, name in enumerate(classes)}
    items = [
        Item(path, split, numbers.get(top_of(inside), 0))
        for path, (split, inside) in zip(listing.images, places, strict=True)
    ]
    with limited_pixels():
        items = _look_at_all(root, items, look)
        sheet = _sheet(root, items, look)
    left_out = sum(listing.left_out.values())
    note = left_out_note(root, listing)
    return Inspection(items, classes, left_out, note, refused, sheet=sheet)


def inspect_arrays(path: Path) -> Inspection:
    """Look at the images of a .npz or .npy file, or of a folder of them, one split at a time.

    Raises:
        UserError: a file cannot be read as images.
    """
    items, levels, classes, sheet = [], np.zeros(256, np.int64), 0, None
    for split in sorted(split_files(path), key=split_order):
        data = open_arrays(split, str(path), Look()).load()
        size = (data.images.shape[2], data.images.shape[1])
        for i, (image, label) in enumerate(zip(data.images, data.labels.tolist(), strict=True)):
            levels += np.bincount(image.ravel(), minlength=256)
            items.append(Item(f"{split}[{i}]", split, label, size=size, digest=_digest(image)))
        classes = max(classes, data.classes)
        sheet = sheet or sheet_of_arrays(split, data)
    return Inspection(items, [str(i) for i in range(classes)], levels=levels, sheet=sheet)


def duplicates(items: Sequence[Item]) -> list[list[Item]]:
    """Return the groups of readable images whose pixels are equal."""
    groups = defaultdict(list)
    for item in items:
        if not item.fault:
            groups[item.digest].append(item)
    return [group for group in groups.values() if len(group) > 1]


def _places(root: Path, listing: Listing) -> tuple[list[tuple[str, str]], str]:
    """Return each image's split and its path within the split, and why training refuses them."""
    try:
        alone = find_splits(root, listing) == {"train": root}
    except UserError as error:
        return [("", os.path.basename(path)) for path in listing.images], str(error)
    if alone:
        return [("train", path) for path in listing.images], ""
    tops = [top_of(path) for path in listing.images]
    pairs = zip(tops, listing.images, strict=True)
    return [(SPLITS[top.lower()], path.removeprefix(top + os.sep)) for top, path in pairs], ""


def _look_at_all(root: Path, items: list[Item], look: Look) -> list[Item]:
    from tqdm import tqdm

    chunks = [items[first : first + CHUNK] for first in range(0, len(items), CHUNK)]

    def work(chunk: list[Item]) -> list[Item]:
        return [_look_at(root, item, look) for item in chunk]

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = pool.map(work, chunks)
        bar = tqdm(total=len(items), desc="images", leave=False, disable=None, delay=5)
        seen = []
        with bar:
            for each in found:
                seen += each
                bar.update(len(each))
    return seen


def _look_at(root: Path, item: Item, look: Look) -> Item:
    try:
        with opened(os.path.join(root, item.name)) as image:
            item = item._replace(mode=image.mode)
            traits = {
                "animated": getattr(image, "is_animated", False),
                "rotated": look.exif and image.getexif().get(ORIENTATION, 1) in range(2, 9),
                "transparent": image.has_transparency_data,
            }
            pixels = as_pixels(image, look._replace(size=0))
    except Unreadable as error:
        return item._replace(fault=str(error))
    size = (pixels.shape[1], pixels.shape[0])
    found = tuple(name for name, has in traits.items() if has)
    return item._replace(traits=found, size=size, digest=_digest(pixels))


def _digest(pixels: np.ndarray) -> bytes:
    digest = hashlib.blake2b(repr(pixels.shape).encode(), digest_size=16)
    digest.update(pixels.tobytes())
    return digest.digest()


def _sheet(root: Path, items: list[Item], look: Look) -> Sheet | None:
    readable = [item for item in items if not item.fault]
    if not readable:
        return None
    split = min((item.split for item in readable), key=split_order)
    mine = [item for item in readable if item.split == split]
    paths = [os.path.join(root, item.name) for item in mine]
    return sheet_of_files(split, paths, np.array([item.label for item in mine]), look)


def split_order(split: str) -> int:
    """Return a sort key of splits: train, test, validation."""
    return [*SPLITS.values(), ""].index(split)
