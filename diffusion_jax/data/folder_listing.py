"""What a folder holds: the images that are read, and a count of everything that is not."""

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from diffusion_jax.errors import UserError

EXTENSIONS = (
    *(".png", ".jpg", ".jpeg", ".jfif", ".webp", ".bmp", ".gif"),
    *(".tif", ".tiff", ".ppm", ".pgm", ".pbm"),
)
# Folders that systems, archivers and servers make. Those that are hidden are left out anyway.
FOREIGN = {
    "__macosx",
    "@eadir",
    "#recycle",
    "$recycle.bin",
    "lost+found",
    "system volume information",
}
# Folders that are splits, by their names in lower case.
SPLITS = {
    "train": "train",
    "training": "train",
    "test": "test",
    "testing": "test",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
}


class Listing(NamedTuple):
    """The files under a folder.

    images: paths of the images within the folder, sorted by their parts.
    left_out: number of the other files, by what they are.
    """

    images: list[str]
    left_out: Counter[str]


def list_folder(root: Path) -> Listing:
    """List the images under `root` at any depth.

    Hidden files and folders, and those in `FOREIGN`, are left out. A link to a folder that contains
    it is not followed.

    Raises:
        UserError: a folder cannot be read, or an image is not a regular file.
    """
    images, left_out = [], Counter()
    waiting: list[tuple[str, frozenset[str], str]] = [("", frozenset(), "")]
    while waiting:
        inside, above, reason = waiting.pop()
        place = os.path.join(root, inside)
        real = os.path.realpath(place)
        if real in above:
            continue
        for entry in _entries(place, needed=not reason):
            path = os.path.join(inside, entry.name)
            why = reason or _reason(entry.name)
            if holds(entry.is_dir):
                waiting.append((path, above | {real}, why))
            elif why or not entry.name.lower().endswith(EXTENSIONS):
                left_out[why or _kind(entry.name)] += 1
            elif not holds(entry.is_file):
                raise UserError(f"{entry.path}: not a regular file; remove it")
            else:
                images.append(path)
    return Listing(sorted(images, key=lambda path: path.split(os.sep)), left_out)


def find_splits(root: Path, listing: Listing) -> dict[str, Path]:
    """Return the folder of each split under `root`, whose files are `listing`.

    Folders called train, test, validation and the like are splits, in upper or lower case, if no
    other images are beside them. Without such folders, everything is the split 'train'.

    Raises:
        UserError: other images are beside them, or two folders are the same split.
    """
    tops = Counter(top_of(path) for path in listing.images)
    splits = [name for name in sorted(tops) if name.lower() in SPLITS]
    others = {name: count for name, count in tops.items() if name not in splits}
    if not splits:
        return {"train": root}
    if others:
        found = ", ".join(_described(name, count) for name, count in sorted(others.items())[:5])
        own = splits[0]
        raise UserError(
            f"'{root}' holds a split ({', '.join(splits)}) and beside it other images ({found}); "
            f"to use the split alone, set --config.data.dir={root / own}; if '{own}' is a class, "
            "rename its folder; otherwise move the others into the split"
        )
    folders: dict[str, Path] = {}
    for name in splits:
        split = SPLITS[name.lower()]
        if split in folders:
            both = f"'{folders[split].name}' and '{name}'"
            raise UserError(f"'{root}' holds {both}, which are the same split; keep one of them")
        folders[split] = root / name
    return folders


def left_out_note(root: Path, listing: Listing) -> str:
    """Return one line on the files that are not read; '' if there are none."""
    counts = listing.left_out.most_common()
    if not counts:
        return ""
    shown = ", ".join(f"{count} {kind}" for kind, count in counts[:8])
    more = sum(count for _, count in counts[8:])
    return f"'{root}': left out {shown}{f', {more} others' if more else ''}"


def top_of(path: str) -> str:
    """Return the folder directly under the root that a path lies in; '' for a file at the root."""
    return path.partition(os.sep)[0] if os.sep in path else ""


def holds(question: Callable[[], bool]) -> bool:
    """Ask about a folder's entry; return False if it cannot be resolved, as a link to itself."""
    try:
        return question()
    except OSError:
        return False


def _entries(place: str, needed: bool) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(place) as listing:
            return list(listing)
    except OSError as error:
        if not needed:
            return []
        raise UserError(f"cannot read the folder '{place}': {error.strerror}") from error


def _reason(name: str) -> str:
    """Return why a file or folder of this name is left out, with all that it holds."""
    if name.startswith("."):
        return "hidden"
    return f"in '{name}'" if name.lower() in FOREIGN else ""


def _kind(name: str) -> str:
    return os.path.splitext(name)[1].lower() or "without extension"


def _described(name: str, count: int) -> str:
    return f"{count} in '{name}'" if name else f"{count} files"
