"""Event loops that end what they began: Orbax closes its own around the first write that fails."""

import asyncio
import threading

LIMIT = 60.0  # seconds; a write that hangs in the file system is given up then


class _Loop(asyncio.SelectorEventLoop):
    """Waits for its tasks before it closes.

    A write that outlives its loop prints a traceback, and makes a folder anew that was removed.
    """

    def __init__(self):
        super().__init__()
        # Of errors that nobody asked for: the one that was asked for speaks for all.
        self.set_exception_handler(lambda loop, context: None)

    def close(self) -> None:
        tasks = set() if self.is_closed() else asyncio.all_tasks(self)
        if tasks:
            self.run_until_complete(asyncio.wait(tasks, timeout=LIMIT))
        super().close()


class _Policy(asyncio.DefaultEventLoopPolicy):
    def new_event_loop(self) -> asyncio.AbstractEventLoop:
        return _Loop()


def install() -> None:
    """Make every event loop that is made from now on such a one."""
    if not isinstance(asyncio.get_event_loop_policy(), _Policy):
        asyncio.set_event_loop_policy(_Policy())


def join_threads(package: str) -> None:
    """Wait for the threads that a package has started and not waited for."""
    for thread in threading.enumerate():
        if type(thread).__module__.split(".")[0] == package:
            threading.Thread.join(thread, LIMIT)
