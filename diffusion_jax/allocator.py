"""What the C library's allocator is told; imports no JAX, whose threads must start after."""

import ctypes
import os

# glibc's mallopt(3): map no block, trim never. Not one arena for all threads: a compiler's, and
# those of a training step, would wait for each other.
KEEP = {-4: 0, -1: -1}
# Map any number of blocks, those of 32 MiB or more, the highest limit it takes.
MAP = {-4: 2**16, -3: 2**25}
LARGE = 2**28  # bytes


def _told() -> bool:
    return any(name.startswith("MALLOC_") for name in os.environ)


def _tell(parameters: dict[int, int]) -> None:
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # other C libraries have their own ways; without it all is only slower
        for parameter, value in parameters.items():
            mallopt(parameter, value)


def keep_freed_memory() -> None:
    """Have the C library reuse what is freed instead of giving it back to the system at once.

    On a CPU a compiled program's temporary memory is one allocation a call, 50 MB for a training
    step of the digits' network: given back and taken anew, every page of it is a fault, in every
    step. Where the environment has variables that begin with MALLOC_, all is as they say.
    """
    if not _told():
        _tell(KEEP)


def make_room(temporary: int) -> None:
    """Prepare for the calls of a program, just compiled, with so many bytes of temporary memory.

    A small array that outlives a call may come to lie where the call had its memory, which then
    finds no room there in the next: two or three times its size would be kept. Where that is much,
    memory is mapped for each call instead, at the cost of the faults.
    """
    if not _told() and temporary >= LARGE:
        _tell(MAP)
    give_back()


def give_back() -> None:
    """Give back what is free just now: after compiling and after the first step.

    A compiler leaves more behind than its program needs, and so does the drawing of a first state.
    Left out where the environment has variables that begin with MALLOC_, as above.
    """
    if _told():
        return
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
