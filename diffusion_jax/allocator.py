"""The C library's heap between the phases of a run."""

import ctypes


def give_back() -> None:
    """Give what is free just now back to the system: after compiling and after the first step.

    A compiler leaves more behind than its program needs, and so does the drawing of a first state;
    what is left lies in many holes, and a step that looks through them takes a tenth longer.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:  # glibc's; other C libraries have their own ways
        trim(0)
