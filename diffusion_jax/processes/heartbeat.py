"""Heartbeats that let processes end together: process 0 tells the others about every exit.

A dead process closes its connections at once, and a frozen one misses its beats. The others then
exit with one line and `LostPeer.exit_code`, from a separate thread, because the main thread may
hang.
"""

import json
import os
import queue
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NoReturn

from diffusion_jax.errors import LostPeer, Unsaved, UserError

# Seconds between two beats, and seconds of silence after which a process counts as lost.
BEAT, SILENCE = 2.0, 30.0
# Exit codes with which one process may end while the others go on or hang: a crash, bad input, a
# failed save, a second Ctrl-C.
ALONE = {1, UserError.exit_code, Unsaved.exit_code, 128 + signal.SIGINT}
# Seconds that the others have to end after one ended with a code in ALONE, or with any other.
GRACE, PATIENCE = 5.0, 300.0
RESUME_HINT = "start all processes again with the same command to resume"


class Link:
    """A connection that carries messages as lines of JSON: lists that start with their kind."""

    def __init__(self, connection: socket.socket):
        self._socket = connection
        self._lines = connection.makefile("r", encoding="utf-8")
        self._lock = threading.Lock()

    def send(self, *message: Any) -> None:
        """Send a message, ignoring a broken connection, which `receive` will notice."""
        data = json.dumps(message).encode() + b"\n"
        with suppress(OSError), self._lock:
            self._socket.sendall(data)

    def close(self) -> None:
        """Close the connection for both sides; this also ends a waiting `receive`."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def receive(self) -> list | None:
        """Return the next message; None at the end, on invalid data or too long a silence."""
        try:
            message = json.loads(self._lines.readline())
        except (OSError, ValueError):
            return None
        return message if isinstance(message, list) else None


class Heartbeat:
    """One process's part in the heartbeat: it beats, listens, and exits if another is lost.

    Args:
        links: by process: process 0 has a link to every other one, the others one to process 0.
    """

    def __init__(self, index: int, count: int, links: dict[int, Link]):
        self.index, self._count, self._links = index, count, links.values()
        self.step: int | None = None
        self._own: int | None = None
        self._codes: dict[int, int] = {}
        self._said = threading.Condition()
        self._answers: queue.SimpleQueue = queue.SimpleQueue()
        self._ending = threading.Lock()
        for peer, link in links.items():
            self._start(self._listen, link, peer)
        self._start(self._beat)

    def _start(self, work: Callable, *arguments: Any) -> None:
        threading.Thread(target=work, args=arguments, daemon=True).start()

    def on_first_process(self, work: Callable[[], Any]) -> Any:
        """Do the work of `cluster.on_first_process`."""
        if self.index:
            value, refusal = self._answers.get()
            if refusal is not None:
                raise UserError(refusal)
            return value
        try:
            value = work()
        except UserError as error:
            self._send("answer", None, str(error))
            raise
        self._send("answer", value, None)
        return value

    def settle(self) -> None:
        """Wait a second; do not return if this process is being ended because another was lost."""
        time.sleep(1.0)
        with self._ending:
            pass

    def leave(self, code: int) -> bool:
        """Send the exit code, wait for those of the others, and return whether all have come.

        The wait is limited only if `code` is in `ALONE`.
        """
        with self._ending:
            self._own = code
        self._send("bye", self.index, code)
        with self._said:
            return self._said.wait_for(
                lambda: len(self._codes) == self._count - 1, 2 * GRACE if code in ALONE else None
            )

    def close(self) -> None:
        """Close the connections, after `leave`."""
        for link in self._links:
            link.close()

    def _send(self, *message: Any, but: Link | None = None) -> None:
        for link in self._links:
            if link is not but:
                link.send(*message)

    def _beat(self) -> None:
        while True:
            time.sleep(BEAT)
            self._send("beat")

    def _listen(self, link: Link, peer: int) -> None:
        while message := link.receive():
            match message:
                case ["answer", value, refusal]:
                    self._answers.put((value, refusal))
                case ["bye", int(who), int(code)]:
                    with self._said:
                        self._codes[who] = code
                        self._said.notify_all()
                    self._send("bye", who, code, but=link)
                    self._start(self._expect_own, who, GRACE if code in ALONE else PATIENCE)
                case ["lost", str(reason)]:
                    self._end(reason)
        if peer not in self._codes:
            self._end(f"process {peer} of {self._count} was lost")
        self._end_unless_leaving(peer)

    def _expect_own(self, who: int, seconds: float) -> None:
        time.sleep(seconds)
        self._end_unless_leaving(who)

    def _end_unless_leaving(self, who: int) -> None:
        if self._own is None:
            code = self._codes[who]
            self._end(f"process {who} of {self._count} ended with exit code {code}")

    def _end(self, reason: str) -> NoReturn:
        self._ending.acquire()  # never released: only the first reason counts
        if self.index == 0:
            self._send("lost", reason)
        after = "" if self.step is None else f" after step {self.step}"
        line = "" if self._own else f"error: {reason}{after}; {RESUME_HINT}\n"
        if self.index == 0:
            time.sleep(0.3)  # the others read the reason before they see this process end
        exit_now(self._own or LostPeer.exit_code, line)


def exit_now(code: int, line: str = "") -> NoReturn:
    """End the process without its exit handlers, which could hang waiting for lost processes."""

    def speak():
        if line:
            os.write(2, f"\n{line}".encode() if os.isatty(2) else line.encode())
        sys.stdout.flush()
        sys.stderr.flush()

    # In another thread, because the main thread may hold a stream's lock forever.
    speaking = threading.Thread(target=speak, daemon=True)
    speaking.start()
    speaking.join(2.0)
    os._exit(code)
