"""What every benchmark result carries: where and with what it was measured."""

import json
import os
import platform
import subprocess
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent


class Finished(NamedTuple):
    """A command that ended well: its lines, each with its second, and its peak memory."""

    lines: list[tuple[float, str]]
    seconds: float
    peak_gib: float


def run(command: list[str], **environment: str) -> Finished:
    """Run a command from the project's root and time its output.

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
    lines = [(time.perf_counter() - began, line.rstrip()) for line in process.stdout]
    _, status, usage = os.wait4(process.pid, 0)
    if status:
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


def save(path: Path | None, result: dict) -> None:
    """Print a result as JSON with hardware, versions and date; also write it if `path` is given."""
    import jax

    packages = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
    record = {
        **result,
        "hardware": {
            "processor": processor(),
            "cores": os.cpu_count(),
            "devices": [device.device_kind for device in jax.devices()],
        },
        "versions": {"python": platform.python_version(), **{p: version(p) for p in packages}},
        "date": datetime.now(UTC).date().isoformat(),
    }
    text = json.dumps(record, indent=2)
    print(text)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
