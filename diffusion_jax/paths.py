"""Paths as users give them."""

import re
from pathlib import Path

from diffusion_jax.errors import UserError

ADDRESS = re.compile(r"([a-z][a-z0-9+.-]+):/+([^/]*)", re.IGNORECASE)
MOUNTS = {"gs": "gcsfuse {} FOLDER", "s3": "mount-s3 {} FOLDER"}


def as_path(text: str | Path) -> Path:
    """Return a local path, with `~` for the home folder.

    Raises:
        UserError: it is empty, or the address of a bucket or server.
    """
    if not str(text):
        raise UserError("a path is empty; give the name of a file or folder")
    if match := ADDRESS.match(str(text)):
        kind, bucket = match[1].lower(), match[2]
        mount = f"mount it ({MOUNTS[kind].format(bucket)}) and " if kind in MOUNTS else ""
        raise UserError(
            f"{text} is an address, but only local files are read and written; {mount}give the "
            "path of a local folder"
        )
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise UserError(f"{text}: {error}; write the path without ~") from error
