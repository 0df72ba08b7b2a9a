"""The persistent compilation cache, in a folder that only its owner can write."""

import os
import stat
from pathlib import Path

import jax


def enable() -> None:
    """Keep compiled programs between runs, unless the environment already says where."""
    if os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        return
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = private(home / "diffusion_jax" / "jax")
    if folder is None:
        return  # a cache is a convenience: without a place for it everything still works
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


def private(folder: Path) -> Path | None:
    """Where `folder` really is, made if need be and closed to all but this user; None if it cannot.

    Whoever can write the folder can run code here. So it must be this user's, and nobody else may
    be able to put another in its place: every folder above it is this user's or root's, and not
    open for all to write, except as /tmp is, where only owners may rename.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        real = folder.resolve(strict=True)
        if real.stat().st_uid != os.getuid() or not all(map(_safe, real.parents)):
            return None
        real.chmod(0o700)
    except (OSError, RuntimeError):  # the latter is a circle of links
        return None
    return real


def _safe(folder: Path) -> bool:
    status = folder.stat()
    open_to_all = status.st_mode & stat.S_IWOTH and not status.st_mode & stat.S_ISVTX
    return status.st_uid in (0, os.getuid()) and not open_to_all
