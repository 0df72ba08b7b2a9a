"""Run commands, and save results with where and with what they were measured."""

import json
import os
import platform
import signal
import subprocess
import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import jax

from diffusion_jax.command_line import Parser, as_path, check_file

ROOT = Path(__file__).parent.parent.parent
PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


class Finished(NamedTuple):
    """A command that succeeded: its lines with their seconds, its duration, its peak memory."""

    lines: list[tuple[float, str]]
    seconds: float
    peak_gib: float


def run(
    command: list[str],
    environment: Mapping[str, str] = MappingProxyType({}),
    stop_after: float | None = None,
) -> Finished:
    """Run a command from the project's root and time its output.

    Args:
        environment: additional variables.
        stop_after: seconds after which it is asked to stop, which is no failure.

    Raises:
        SystemExit: the command failed; its output is shown.
    """
    began = time.perf_counter()
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **environment},
    )
    assert process.stdout
    stopping = threading.Timer(stop_after or 0.0, process.terminate)
    if stop_after is not None:
        stopping.start()
    lines = [(time.perf_counter() - began, line.rstrip()) for line in process.stdout]
    _, status, usage = os.wait4(process.pid, 0)
    stopping.cancel()
    stopped = stop_after is not None and time.perf_counter() - began >= stop_after
    by_signal = os.waitstatus_to_exitcode(status) in (-signal.SIGTERM, 128 + signal.SIGTERM)
    if status and not (stopped and by_signal):
        raise SystemExit("\n".join([f"failed: {' '.join(command)}", *(text for _, text in lines)]))
    return Finished(lines, time.perf_counter() - began, usage.ru_maxrss / 2**20)


def parser(name: str, description: str | None) -> Parser:
    """Make the parser of `python -m benchmarks.NAME`, which knows `--out`."""
    made = Parser(prog=f"python -m benchmarks.{name}", description=description)
    made.add_argument("--out", type=_writable, help="write the result to this JSON file too")
    return made


def _writable(text: str) -> Path:
    check_file(path := as_path(text))
    return path


def processor() -> str:
    """Return the processor's name, as far as the system tells."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def described(result: dict[str, Any], devices: list[str]) -> dict[str, Any]:
    """Add hardware, versions and date to a result; `devices` are the kinds of JAX's devices."""
    return {
        **result,
        "hardware": {"processor": processor(), "cores": os.cpu_count(), "devices": devices},
        "versions": {"python": platform.python_version(), **{p: version(p) for p in PACKAGES}},
        "date": datetime.now(UTC).date().isoformat(),
    }


def save(path: Path | None, result: dict[str, Any]) -> None:
    """Print a result as JSON with where it was measured; write it to `path` too, if given."""
    text = json.dumps(described(result, [device.device_kind for device in jax.devices()]), indent=2)
    print(text)
    if path is not None:
        path.write_text(text + "\n")
