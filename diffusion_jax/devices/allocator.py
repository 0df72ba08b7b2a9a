"""glibc malloc settings for small compiled steps."""

import ctypes
import os

# glibc's M_MMAP_MAX, M_TRIM_THRESHOLD, M_TOP_PAD: map no block, trim never, and take a thread's
# heap from the system whole.
KEEP = {-4: 0, -1: -1, -2: 2**26}
# Bytes. glibc learns to keep smaller blocks by itself; blocks larger than the heap of a thread
# other than the first (64 MiB where pointers have 64 bits) it maps whatever the settings.
KEPT_BLOCKS = range(2**25, 2**26)


def make_room(temporary: int) -> None:
    """Configure malloc for the calls of a compiled program with `temporary` bytes of temporaries.

    On a CPU the temporaries are one allocation per call. If it is returned to the system and
    allocated again, every page of it faults in every call: a sixth of a small network's training
    step. So glibc is set to keep it, and with it all memory that this process frees from then on.
    The user's own settings are respected: MALLOC_ variables, or GLIBC_TUNABLES for malloc.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # not in other C libraries
    if mallopt is not None and temporary in KEPT_BLOCKS and not _set_by_user():
        for parameter, value in KEEP.items():
            mallopt(parameter, value)
    give_back()


def give_back() -> None:
    """Return free memory to the system: after compiling and after the first step.

    A compiler leaves more behind than its program needs, and so does drawing the first state.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _set_by_user() -> bool:
    tuned = "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", "")
    return tuned or any(name.startswith("MALLOC_") for name in os.environ)
