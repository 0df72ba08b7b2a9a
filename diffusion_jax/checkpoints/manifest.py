"""The manifest of a checkpoint: the SHA-256 of each of its files, written when all are on disk."""

import hashlib
import os
from pathlib import Path

from diffusion_jax.files import replacing, sync_folder

NAME = "manifest.sha256"


def write(folder: Path) -> None:
    """Wait until every file under `folder` is on disk, then write their checksums.

    `sha256sum -c manifest.sha256` can verify them, too.
    """
    files = _files(folder)
    sums = [f"{_sum(folder / name, durable=True)}  {name}\n" for name in files]
    for place in {(folder / name).parent for name in files}:
        sync_folder(place)
    with replacing(folder / NAME, durable=True) as file:
        file.writelines(sums)


def exists(folder: Path) -> bool:
    """Return whether the folder has a manifest, and so is complete; nothing is verified."""
    return (folder / NAME).is_file()


def damage(folder: Path, without: str = "") -> str | None:
    """Return the first difference between `folder` and its manifest, None if there is none.

    Args:
        without: a subfolder that may be missing as a whole.
    """
    try:
        *lines, rest = (folder / NAME).read_text(encoding="ascii").split("\n")
        listed = {name: value for value, name in (line.split("  ", 1) for line in lines)}
        if rest or not lines or len(listed) < len(lines):
            return f"{NAME} is truncated"
        found = _files(folder)
        if without and not (folder / without).exists():
            listed = {name: value for name, value in listed.items() if not _within(name, without)}
        for name in sorted(listed.keys() ^ set(found)):
            return f"{name} is {'missing' if name in listed else f'not in {NAME}'}"
        for name in found:
            if _sum(folder / name) != listed[name]:
                return f"{name} does not match its checksum"
    except FileNotFoundError as error:
        return f"{Path(str(error.filename)).name} is missing"
    except ValueError:
        return f"{NAME} is damaged"
    return None


def _within(name: str, folder: str) -> bool:
    return name.startswith(f"{folder}/")


def _files(folder: Path) -> list[str]:
    own = {NAME, NAME + ".part"}
    paths = (p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    return sorted(path for path in paths if path not in own)


def _sum(path: Path, durable: bool = False) -> str:
    with path.open("rb") as file:
        if durable:
            os.fsync(file.fileno())
        return hashlib.file_digest(file, "sha256").hexdigest()
