"""Cores that do not sleep while something is measured; how long one takes to wake otherwise.

python -m benchmarks.awake

A virtual machine's core that has nothing to do goes back to the host, and takes long to come back:
a program that waits for another thread thousands of times a second then takes a quarter longer.
"""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from diffusion_jax.commands.arguments import run
from diffusion_jax.errors import UserError

# At the lowest of all priorities: whoever has work takes the core at once. Ends with its parent.
SPIN = """
import os
os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
parent = os.getppid()
while os.getppid() == parent:
    pass
"""
ECHO = "import os\nwhile os.read(0, 1): os.write(1, b'x')"


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


def wake_up(times: int = 3000) -> float:
    """Median seconds from a write until a process that waits for it on another core has it."""
    cores = os.sched_getaffinity(0)
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", ECHO], stdin=pipe, stdout=pipe, bufsize=0) as echo:
        assert echo.stdin
        assert echo.stdout
        os.sched_setaffinity(echo.pid, {max(cores)})
        os.sched_setaffinity(0, {min(cores)})
        taken = []
        for _ in range(times):
            began = time.perf_counter()
            echo.stdin.write(b"x")
            echo.stdout.read(1)
            taken.append((time.perf_counter() - began) / 2)
            time.sleep(0.0005)  # it falls asleep
        os.sched_setaffinity(0, cores)
        echo.stdin.close()
    return statistics.median(taken)


def main(arguments: list[str]) -> None:
    """Measure and say it."""
    if arguments:
        raise UserError(f"benchmarks.awake takes no arguments, got {arguments[0]}")
    check()
    asleep = wake_up()
    with awake():
        kept = wake_up()
    print(f"a core wakes in {asleep * 1e6:.0f} us, kept awake it answers in {kept * 1e6:.0f} us")


if __name__ == "__main__":
    run(main)
