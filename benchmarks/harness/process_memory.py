"""How much memory this process has and had at its peak; the standard library alone."""

import resource
import sys
from contextlib import suppress
from pathlib import Path

STATUS = Path("/proc/self/status")


def peak_bytes() -> int:
    """The most resident memory since the start, or since `forget_peak`."""
    if STATUS.exists():  # the C library's figure would begin with that of the parent process
        return _field("VmHWM")
    unit = 1 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def resident_bytes() -> int:
    """Resident memory now; the peak where the system does not tell."""
    return _field("VmRSS") if STATUS.exists() else peak_bytes()


def forget_peak() -> None:
    """Count the peak from now on, where the system lets us."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _field(name: str) -> int:
    lines = STATUS.read_text().splitlines()
    return next(int(line.split()[1]) * 2**10 for line in lines if line.startswith(name))
