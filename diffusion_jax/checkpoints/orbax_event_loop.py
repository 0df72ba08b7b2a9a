"""An event loop that awaits pending tasks on close: Orbax closes its own when a write fails."""

import asyncio
import threading

TIMEOUT = 60.0  # seconds after which a write that hangs in the file system is abandoned


class _Loop(asyncio.SelectorEventLoop):
    """Await all pending tasks before closing.

    A write that outlives its loop prints a traceback and recreates a folder that was removed.
    """

    def __init__(self):
        super().__init__()
        # Only the first error is raised to the caller; the others would be logged in full.
        self.set_exception_handler(lambda loop, context: None)

    def close(self) -> None:
        tasks = set() if self.is_closed() else asyncio.all_tasks(self)
        if tasks:
            self.run_until_complete(asyncio.wait(tasks, timeout=TIMEOUT))
        super().close()


def install() -> None:
    """Have `asyncio.new_event_loop`, which Orbax calls, return such loops from now on.

    Event-loop policies would do the same, but Python 3.14 deprecates them.
    """
    asyncio.new_event_loop = _Loop


def join_threads(package: str) -> None:
    """Wait for the threads that a package started and did not join."""
    for thread in threading.enumerate():
        if type(thread).__module__.split(".")[0] == package:
            threading.Thread.join(thread, TIMEOUT)
