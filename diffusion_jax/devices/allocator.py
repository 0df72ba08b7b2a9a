"""glibc malloc settings for small compiled steps."""

import ctypes
import os

# glibc's M_MMAP_MAX, M_TRIM_THRESHOLD and M_TOP_PAD: never use mmap for a block, never trim the
# heap, and grow a thread's heap to its full size at once.
KEEP = {-4: 0, -1: -1, -2: 2**26}
# Sizes of temporaries, in bytes, for which the settings help. glibc learns to keep smaller blocks
# by itself. Larger blocks do not fit into a thread's heap (64 MiB on 64-bit systems), so glibc maps
# them whatever the settings.
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
    """Return the process's free memory to the system.

    Call it after compiling and after the first step: compiling, and drawing the first state, leave
    behind more free memory than the training step needs.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _set_by_user() -> bool:
    tuned = "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", "")
    return tuned or any(name.startswith("MALLOC_") for name in os.environ)
