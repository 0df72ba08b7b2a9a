"""How the compiler and the allocator are set for the machine: all of it, each with its reason."""

import ctypes
import os
from functools import cache
from typing import Any

import jax

# YNNPACK's sums over places are up to 30 times as fast as the loops that XLA writes for a CPU; its
# kernel gradients of large feature maps take 3 times as long as Eigen's. So: its sums alone.
OPTIONS: dict[str, dict[str, Any]] = {
    "cpu": {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_REDUCE"}
}

# glibc's mallopt(3): parameters and values.
KEEP = {-1: -1, -4: 0, -8: 1}  # trim never, map nothing, one arena: the others map large blocks


@cache
def compiler_options() -> dict[str, Any]:
    """What this platform's programs are compiled with; nothing where its compiler knows no such."""
    options = OPTIONS.get(jax.default_backend(), {})
    try:
        if options:
            jax.jit(lambda: 0, compiler_options=options).lower().compile()
    except jax.errors.JaxRuntimeError:
        return {}
    return options


def keep_freed_memory() -> None:
    """Have the C library reuse what is freed instead of giving it back to the system at once.

    On a CPU a compiled program's temporary memory is one allocation a call, 1.1 GB for a training
    step of the CIFAR-10 network: given back and taken anew, every page of it is a fault, in every
    step. To be called before JAX starts its threads. Where the environment has variables that begin
    with MALLOC_, it is as they say.
    """
    if any(name.startswith("MALLOC_") for name in os.environ):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # other C libraries have their own ways; without it all is only slower
        for parameter, value in KEEP.items():
            mallopt(parameter, value)
