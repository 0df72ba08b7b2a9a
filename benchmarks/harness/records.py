"""What every benchmark result carries: where and with what it was measured."""

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
from typing import NamedTuple

ROOT = Path(__file__).parent.parent.parent


class Finished(NamedTuple):
    """A command that ended well: its lines, each with its second, and its peak memory."""

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
        environment: more variables.
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


def processor() -> str:
    """The processor's name, as far as the system tells."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def described(result: dict, devices: list[str]) -> dict:
    """Return a result with hardware, versions and date; `devices` are the kinds of JAX's."""
    packages = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
    return {
        **result,
        "hardware": {"processor": processor(), "cores": os.cpu_count(), "devices": devices},
        "versions": {"python": platform.python_version(), **{p: version(p) for p in packages}},
        "date": datetime.now(UTC).date().isoformat(),
    }


def save(path: Path | None, result: dict) -> None:
    """Print a result as JSON with where it was measured; also write it if `path` is given."""
    import jax

    text = json.dumps(described(result, [device.device_kind for device in jax.devices()]), indent=2)
    print(text)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
