"""What the C library's allocator is told once it is known what a program needs."""

import ctypes
import os

# glibc's M_MMAP_MAX, M_TRIM_THRESHOLD, M_TOP_PAD: map no block, trim never, and take a thread's
# heap from the system whole.
KEEP = {-4: 0, -1: -1, -2: 2**26}
# Bytes. What is smaller glibc learns to keep by itself; what is larger than the heap of a thread
# other than the first (64 MiB where pointers have 64 bits) it maps whatever it is told.
KEPT = range(2**25, 2**26)


def make_room(temporary: int) -> None:
    """Prepare for the calls of a program, just compiled, with so many bytes of temporary memory.

    On a CPU that memory is one allocation a call. Given back and taken anew, every page of it is a
    fault in every call, a sixth of the time of a small network's training step. So glibc is told to
    keep it, and with it all that this process frees from then on. Where the environment has
    variables that begin with MALLOC_, or GLIBC_TUNABLES for its allocator, nothing is told.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # not in other C libraries
    if mallopt is not None and temporary in KEPT and not _set_by_user():
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


def _set_by_user() -> bool:
    tuned = "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", "")
    return tuned or any(name.startswith("MALLOC_") for name in os.environ)
