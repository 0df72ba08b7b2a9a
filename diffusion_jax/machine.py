"""How the compiler and the allocator are set for the machine: all of it, each with its reason."""

import ctypes
from functools import cache
from typing import Any

import jax

# YNNPACK's sums over places are up to 30 times as fast as the loops that XLA writes for a CPU; its
# kernel gradients of large feature maps take 3 times as long as Eigen's. So: its sums alone.
OPTIONS: dict[str, dict[str, Any]] = {
    "cpu": {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_REDUCE"}
}

# Numbers of glibc's mallopt(3).
TRIM_THRESHOLD, MMAP_MAX = -1, -4


@cache
def compiler_options() -> dict[str, Any]:
    """What this platform's programs are compiled with; nothing where its compiler knows no such."""
    options = OPTIONS.get(jax.default_backend(), {})
    try:
        jax.jit(lambda: 0, compiler_options=options).lower().compile()
    except jax.errors.JaxRuntimeError:
        return {}
    return options


def keep_freed_memory() -> None:
    """Have the C library reuse what is freed, instead of giving it back to the system at once.

    A compiled program's temporary memory is one allocation a call, on a CPU 1.1 GB for a training
    step of the CIFAR-10 network: given back and taken anew, it costs 290,000 page faults a step.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # glibc
        mallopt(MMAP_MAX, 0)
        mallopt(TRIM_THRESHOLD, -1)
