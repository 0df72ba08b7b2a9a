"""What training reports: JSON lines and TensorBoard events."""

import json
import os
from pathlib import Path


class MetricsWriter:
    """Writes `metrics.jsonl`, one object per logged step, and TensorBoard events beside it."""

    def __init__(self, workdir: Path, start: int):
        """Go on after `start` updates: later lines, of a run that was cut off, are dropped."""
        from tensorboardX import SummaryWriter

        path = workdir / "metrics.jsonl"
        _keep_until(path, start)
        self._lines = path.open("a")
        self._events = SummaryWriter(str(workdir / "tensorboard"), purge_step=start + 1)

    def write(self, step: int, **values: float) -> None:
        """Write one step's numbers; they are on their way to disk when this returns."""
        self._lines.write(json.dumps({"step": step, **values}) + "\n")
        self._lines.flush()
        for name, value in values.items():
            self._events.add_scalar(name, value, step)

    def close(self) -> None:
        """Close both files."""
        self._lines.close()
        self._events.close()


def _keep_until(path: Path, step: int) -> None:
    if not path.exists():
        return
    lines = path.read_text().splitlines(keepends=True)
    kept = [line for line in lines if _step_of(line) <= step]
    if len(kept) < len(lines):
        part = path.with_suffix(".part")
        part.write_text("".join(kept))
        os.replace(part, path)


def _step_of(line: str) -> float:
    """The step of one line; a line that a kill cut short belongs to no step that is kept."""
    try:
        return json.loads(line)["step"] if line.endswith("\n") else float("inf")
    except ValueError:
        return float("inf")
