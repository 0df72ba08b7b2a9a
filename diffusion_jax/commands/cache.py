"""The persistent compilation cache, in a folder that only its owner can write."""

import os
from pathlib import Path

import jax


def enable() -> None:
    """Keep compiled programs between runs, unless the environment already says where.

    Whoever can write the folder can run code here, so it is made private.
    """
    if os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        return
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = home / "diffusion_jax" / "jax"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.chmod(0o700)
    except OSError:
        return  # a cache is a convenience: without a place for it everything still works
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
