"""XLA options per platform, with their reasons, and the folder of the compilation cache."""

import os
import stat
from functools import cache
from pathlib import Path
from typing import Any

import jax

# YNNPACK's sums over pixels are up to 30 times as fast as the loops that XLA generates for a CPU,
# and its products of many small matrices up to twice as fast as Eigen's. Its kernel gradients of
# large feature maps take 3 times as long as Eigen's. So it is used for all but convolutions.
YNNPACK = "LIBRARY_FUSION_TYPE_REDUCE,LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"
# This XLA pass removes optimisation barriers, so it is disabled. Without barriers, XLA would reuse
# values of the forward pass that the backward pass should recompute, and would transpose all
# kernels before the forward pass; both would have to be kept in memory.
DROPS_BARRIERS = "cse_barrier_expander"
OPTIONS: dict[str, dict[str, Any]] = {
    "cpu": {
        "xla_cpu_experimental_ynn_fusion_type": YNNPACK,
        "xla_disable_hlo_passes": DROPS_BARRIERS,
    }
}


@cache
def compiler_options() -> dict[str, Any]:
    """Return this platform's options, without those that its compiler does not know."""
    options = OPTIONS.get(jax.default_backend(), {})
    return {name: value for name, value in options.items() if known({name: value})}


def known(options: dict[str, Any]) -> bool:
    """Return whether this platform's compiler accepts these options."""
    try:
        jax.jit(lambda: 0, compiler_options=options).lower().compile()
    except jax.errors.JaxRuntimeError:
        return False
    return True


def enable_cache() -> None:
    """Enable JAX's persistent compilation cache, unless the environment already sets its folder."""
    if os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        return
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = private_folder(home / "diffusion_jax" / "jax")
    if folder is None:
        return  # a cache is a convenience: without a place for it everything still works
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


def private_folder(folder: Path) -> Path | None:
    """Create `folder`, accessible only to this user, and return its real path; None if unsafe.

    Whoever can write to the folder can run code in this process. So it must belong to this user,
    and nobody else may be able to replace it: every folder above it must belong to this user or
    root, and must not be world-writable unless it has the sticky bit, as /tmp has.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        real = folder.resolve(strict=True)
        if real.stat().st_uid != os.getuid() or not all(map(_safe, real.parents)):
            return None
        real.chmod(0o700)
    except (OSError, RuntimeError):  # RuntimeError: a cycle of links
        return None
    return real


def _safe(folder: Path) -> bool:
    status = folder.stat()
    open_to_all = status.st_mode & stat.S_IWOTH and not status.st_mode & stat.S_ISVTX
    return status.st_uid in (0, os.getuid()) and not open_to_all
