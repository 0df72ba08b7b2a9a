"""How many images to draw at once: enough to keep devices busy, fewer if memory is short."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax

# Images per device. Larger batches are hardly faster, and a command that is stopped loses its
# batch. See docs/decisions.md.
AT_ONCE = 256
AT_ONCE_ON_CPU = 32

SHARE_OF_FREE = 0.9  # the rest allows for fragmentation
CONTAINER = Path("/sys/fs/cgroup")


def at_once(num: int, devices: Sequence[Any]) -> int:
    """Return the batch size over all devices that splits `num` images into few, equal batches."""
    most = len(devices) * (AT_ONCE_ON_CPU if devices[0].platform == "cpu" else AT_ONCE)
    return math.ceil(num / math.ceil(num / most))


def free_bytes(devices: Sequence[Any]) -> float:
    """Return the free memory per device in bytes, infinite if it is unknown."""
    if devices[0].platform == "cpu":
        return _system_bytes() / len(devices)
    return min(_own_bytes(device.memory_stats() or {}) for device in devices)


def largest_fitting(compiled: Callable[[int], Any], most: int, free: float) -> int:
    """Return the first of most, most/2, ..., 1 whose program fits into memory, or 1 if none does.

    Args:
        compiled: `(n) -> program` for n images on each device.
        free: free memory per device, in bytes.

    Raises:
        JaxRuntimeError: not even the program for one image could be compiled.
    """
    n = most
    while not _fits(compiled, n, free) and n > 1:
        n //= 2
    return n


def _fits(compiled: Callable[[int], Any], n: int, free: float) -> bool:
    try:
        used = compiled(n).memory_analysis()
    except jax.errors.JaxRuntimeError as error:  # some compilers check memory themselves
        if n == 1 or "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return False
    # Parameters are in memory already, and images are small. Some compilers report no analysis.
    return not used or used.temp_size_in_bytes + used.output_size_in_bytes <= SHARE_OF_FREE * free


def _own_bytes(stats: dict[str, int]) -> float:
    return stats.get("bytes_limit", math.inf) - stats.get("bytes_in_use", 0)


def _cached_files() -> int:
    """Return the bytes of files that are cached in memory, and make room when it is needed."""
    try:
        counts = dict(line.split() for line in (CONTAINER / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return 0
    return sum(int(counts.get(name, 0)) for name in ("active_file", "inactive_file"))


def _system_bytes() -> float:
    """Return the memory available without swapping, within the container's limit if it has one."""
    import psutil

    free = psutil.virtual_memory().available
    try:
        names = ("memory.max", "memory.current")
        limit, used = (int((CONTAINER / name).read_text()) for name in names)
        used -= _cached_files()
    except (OSError, ValueError):  # no container, or "max": no limit
        return free
    return min(free, limit - used)
