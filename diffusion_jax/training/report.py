"""What training reports: JSON lines and TensorBoard events."""

import importlib.util
import json
import math
import os
import socket
import time
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import IO, Any

from diffusion_jax.files import replacing


class MetricsWriter:
    """A writer of `metrics.jsonl`, one object per logged step, and of TensorBoard events.

    A full disk does not stop training: metrics that could not be written are kept and retried.
    """

    def __init__(self, workdir: Path, start: int, log_every: int):
        """Continue after step `start`: drop the lines of later steps, left by an interrupted run.

        The line of step `start` is dropped too if it was logged only because a shorter run ended
        there.
        """
        self._path, self._folder = workdir / "metrics.jsonl", workdir / "tensorboard"
        self._waiting: list[tuple[int, dict[str, float]]] = []
        self._lines: IO[bytes] | None = None
        self._events: Events | None = None
        _keep(self._path, lambda step: step < start or (step == start and on_grid(step, log_every)))
        self._purge = start + 1

    def write(self, step: int, **values: float) -> str | None:
        """Write the metrics of a step; return the reason if they could not be written."""
        self._waiting.append((step, values))
        return self.flush()

    def flush(self) -> str | None:
        """Write pending metrics; return the reason if they could not be written."""
        if not self._waiting:
            return None
        try:
            self._write_lines()
            if events_available():
                self._write_events()
            self._size = self._path.stat().st_size
        except OSError as error:
            if self._events is not None:
                self._events.close()  # its last record may be torn: the next ones go to a new file
                self._events = None
            return error.strerror or str(error)
        self._waiting.clear()
        return None

    def _write_lines(self) -> None:
        if self._lines is None:
            self._lines = self._path.open("ab", buffering=0)
            self._size = os.fstat(self._lines.fileno()).st_size
        # Write all pending lines, over whatever an earlier attempt left of them.
        self._lines.truncate(self._size)
        text = "".join(_line(step, values) for step, values in self._waiting).encode()
        while text:  # a full disk may accept only a part; the next write then fails
            text = text[self._lines.write(text) :]

    def _write_events(self) -> None:
        if self._events is None:
            self._events = Events(self._folder, self._purge)
        for step, values in self._waiting:
            self._events.write(step, values)
        self._events.flush()
        self._purge = self._waiting[-1][0] + 1

    def keep_batch(self, step: int, losses: dict[str, Any]) -> Path:
        """Write the losses of a diverged step's batch to a separate file."""
        path = self._path.with_name(f"diverged_{step:07d}.json")
        with replacing(path) as file:
            json.dump({"step": step, **losses}, file, indent=1)
        return path

    def close(self) -> None:
        """Close both files."""
        if self._lines is not None:
            self._lines.close()
        if self._events is not None:
            self._events.close()


def on_grid(step: int, log_every: int) -> bool:
    """Return whether a run of any length logs this step."""
    return step == 1 or (log_every > 0 and step % log_every == 0)


def _line(step: int, values: dict[str, float]) -> str:
    finite = {key: value if math.isfinite(value) else None for key, value in values.items()}
    return json.dumps({"step": step, **finite}) + "\n"


def _keep(path: Path, wanted) -> None:
    if not path.exists():
        return
    lines = path.read_text(errors="replace").splitlines(keepends=True)
    kept = [line for line in lines if wanted(_step_of(line))]
    if len(kept) < len(lines):
        with replacing(path) as file:
            file.writelines(kept)


def _step_of(line: str) -> float:
    """Return the step of a line, infinite for an incomplete line, which is then dropped."""
    try:
        return json.loads(line)["step"] if line.endswith("\n") else float("inf")
    except (ValueError, LookupError, TypeError):
        return float("inf")


@cache
def events_available() -> bool:
    """Return whether the optional package tensorboardX is installed."""
    return importlib.util.find_spec("tensorboardX") is not None


class Events:
    """A new TensorBoard event file in `folder`, which overrides older files from `step` on.

    tensorboardX's SummaryWriter writes in a thread: on a full disk the thread dies, and the program
    then waits for it forever. Here the caller gets the error.
    """

    def __init__(self, folder: Path, step: int):
        from tensorboardX.record_writer import RecordWriter

        folder.mkdir(exist_ok=True)
        now = time.time_ns()
        name = f"events.out.tfevents.{now // 10**9}.{socket.gethostname()}.{now}"
        self._records = RecordWriter(str(folder / name))
        self._add(0, file_version="brain.Event:2")
        self._add(step, session_log={"status": "START"})

    def write(self, step: int, values: dict[str, float]) -> None:
        """Write one step's numbers."""
        from tensorboardX.proto.summary_pb2 import (
            Summary,  # pyright: ignore[reportAttributeAccessIssue]
        )

        for name, value in values.items():
            self._add(step, summary=Summary(value=[Summary.Value(tag=name, simple_value=value)]))

    def _add(self, step: int, **content) -> None:
        from tensorboardX.proto import event_pb2

        event = event_pb2.Event(  # pyright: ignore[reportAttributeAccessIssue]
            wall_time=time.time(), step=step, **content
        )
        self._records.write(event.SerializeToString())

    def flush(self) -> None:
        """Hand everything to the operating system."""
        self._records.flush()

    def close(self) -> None:
        """Close the file, ignoring the error of a full disk."""
        with suppress(OSError):
            self._records.close()
