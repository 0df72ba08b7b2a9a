"""What the C library's allocator is told; imports no JAX, whose threads must start after."""

import ctypes
import os

# glibc's mallopt(3): map no block, trim never, one arena (those of threads map large blocks).
KEEP = {-4: 0, -1: -1, -8: 1}


def _told() -> bool:
    return any(name.startswith("MALLOC_") for name in os.environ)


def keep_freed_memory() -> None:
    """Have the C library reuse what is freed instead of giving it back to the system at once.

    On a CPU a compiled program's temporary memory is one allocation a call, 1.1 GB for a training
    step of the CIFAR-10 network: given back and taken anew, every page of it is a fault, in every
    step. Where the environment has variables that begin with MALLOC_, all is as they say.
    """
    if _told():
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # other C libraries have their own ways; without it all is only slower
        for parameter, value in KEEP.items():
            mallopt(parameter, value)


def give_back() -> None:
    """Give back what is free just now: after compiling and after the first step.

    A compiler leaves more behind than its program needs. And a small array that outlives a step may
    come to lie where the step had its temporaries: they find no room there in the next step, and
    without this up to three times their size would be kept. Left out where the environment has
    variables that begin with MALLOC_, as above.
    """
    if _told():
        return
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
