"""Cores that do not sleep while something is measured.

A virtual machine's core that has nothing to do goes back to the host, and takes long to come back:
a program that waits for another thread a thousand times a second then takes a quarter longer.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from diffusion_jax.errors import UserError

# At the lowest of all priorities: whoever has work takes the core at once. Ends with its parent.
SPIN = """
import os
os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
parent = os.getppid()
while os.getppid() == parent:
    pass
"""


def check() -> None:
    """Raises UserError where there is no such priority."""
    if not hasattr(os, "SCHED_IDLE"):
        raise UserError("--awake needs Linux; leave it out")


@contextmanager
def awake(wanted: bool = True) -> Iterator[None]:
    """Meanwhile a process for each core turns in a loop, if that is wanted."""
    count = len(os.sched_getaffinity(0)) if wanted else 0
    spinning = [subprocess.Popen([sys.executable, "-c", SPIN]) for _ in range(count)]
    try:
        yield
    finally:
        for each in spinning:
            each.kill()
            each.wait()
