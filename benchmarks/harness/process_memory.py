"""Resident memory of this process, now and at its peak; needs only the standard library."""

import resource
import sys
from contextlib import suppress
from pathlib import Path

STATUS = Path("/proc/self/status")


def peak_bytes() -> int:
    """Return the most resident memory since the start, or since `forget_peak`."""
    if STATUS.exists():  # `getrusage` would start from the parent's figure
        return _field("VmHWM")
    unit = 1 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def resident_bytes() -> int:
    """Return the resident memory now, or the peak where the system does not tell."""
    return _field("VmRSS") if STATUS.exists() else peak_bytes()


def forget_peak() -> None:
    """Count the peak from now on, where the system allows it."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _field(name: str) -> int:
    lines = STATUS.read_text().splitlines()
    return next(int(line.split()[1]) * 2**10 for line in lines if line.startswith(name))
