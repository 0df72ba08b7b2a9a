"""TensorBoard events, written at once."""

import importlib.util
import time
from pathlib import Path


def available() -> bool:
    """Whether tensorboardX is installed, which a bare machine may lack."""
    return importlib.util.find_spec("tensorboardX") is not None


class Events:
    """A new file of events under `folder`; what older files say from `step` on is void.

    tensorboardX's own SummaryWriter writes in a thread: on a full disk the thread dies, and the
    program then waits for it for ever. Here the caller hears of it.
    """

    def __init__(self, folder: Path, step: int):
        from tensorboardX.event_file_writer import EventsWriter

        folder.mkdir(exist_ok=True)
        self._writer = EventsWriter(str(folder / "events"), f".{time.time_ns()}")
        self._add(step, session_log={"status": "START"})

    def write(self, step: int, values: dict[str, float]) -> None:
        """One step's numbers."""
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
        self._writer.write_event(event)

    def flush(self) -> None:
        """Hand everything to the operating system."""
        self._writer.flush()

    def close(self) -> None:
        """Close the file."""
        self._writer.close()
