"""What the C library's allocator is told once it is known what a program needs."""

import ctypes
import os

SMALL = 2**26  # bytes; what is larger a thread other than the first maps in any case
# glibc's mallopt(3): map no block, trim never, and take this much from the system at once.
KEEP = {-4: 0, -1: -1, -2: SMALL}


def make_room(temporary: int) -> None:
    """Prepare for the calls of a program, just compiled, with so many bytes of temporary memory.

    On a CPU it is one allocation a call. Given back and taken anew, every page of it is a fault in
    every call, a sixth of a small network's training step; so small ones are kept. Where the
    environment has variables that begin with MALLOC_, nothing is told.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # not in other C libraries
    told = any(name.startswith("MALLOC_") for name in os.environ)
    if mallopt is not None and not told and temporary < SMALL:
        for parameter, value in KEEP.items():
            mallopt(parameter, value)
    give_back()


def give_back() -> None:
    """Give what is free just now back to the system: after compiling and after the first step.

    A compiler leaves more behind than its program needs, and so does the drawing of a first state.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
