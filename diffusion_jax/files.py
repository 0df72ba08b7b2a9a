"""Atomic file writes."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any


@contextmanager
def replacing(path: Path, mode: str = "w", durable: bool = False) -> Iterator[IO[Any]]:
    """Open a temporary file beside `path` that replaces it only when all has been written.

    Args:
        durable: wait until the content would survive a power failure.
    """
    part = path.with_name(path.name + ".part")
    try:
        with part.open(mode) as file:
            yield file
            if durable:
                file.flush()
                os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    if durable:
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Wait until the file names in a folder would survive a power failure."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
