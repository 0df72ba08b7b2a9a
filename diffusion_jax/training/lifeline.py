"""Processes that end together: each keeps a connection with process 0 and hears how others end.

A dead process closes its connections at once and a frozen one misses its beats. Whoever is left
then leaves with one line and `LostPeer.exit_code`, from a thread of its own, whatever the main
thread hangs in.
"""

import json
import os
import queue
import socket
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NoReturn

from diffusion_jax.errors import LostPeer, UserError

BEAT, SILENCE = 2.0, 30.0  # seconds: between two signs of life, and without any until one is lost
ALONE = {1, UserError.exit_code}  # ends that one process may come to while the others go on
# Seconds the others have to come to their own end after one has ended alone, or in due order.
GRACE, PATIENCE = 5.0, 300.0
MEND = "start all processes again with the same command to resume"


class Link:
    """Messages, lists that start with their kind, as lines of JSON over one connection."""

    def __init__(self, connection: socket.socket):
        self._socket = connection
        self._lines = connection.makefile("r", encoding="utf-8")
        self._lock = threading.Lock()

    def send(self, *message: Any) -> None:
        """Send; a broken connection is left for the reader to notice."""
        data = json.dumps(message).encode() + b"\n"
        with suppress(OSError), self._lock:
            self._socket.sendall(data)

    def receive(self) -> list | None:
        """The next message; None after the last, after noise and after too long a silence."""
        try:
            message = json.loads(self._lines.readline())
        except (OSError, ValueError):
            return None
        return message if isinstance(message, list) else None


def host(server: socket.socket, count: int, patience: float, *news: Any) -> list[Link]:
    """Process 0: wait for the others at `server`, then send `news` to all.

    Raises:
        LostPeer: for `patience` seconds none of those that are missing came.
    """
    links: dict[int, Link] = {}
    server.settimeout(BEAT)
    until = time.monotonic() + patience
    while len(links) < count - 1:
        for link in links.values():
            link.send("beat")
        if time.monotonic() > until:
            missing = ", ".join(str(i) for i in range(1, count) if i not in links)
            where = _text(server.getsockname())
            raise LostPeer(
                f"waited {patience:g} s at {where} for process {missing} of {count}; start all "
                "processes with the same --coordinator and --num_processes"
            )
        with suppress(TimeoutError):
            link = _greet(server.accept()[0], count, links)
            if link is not None:
                until = time.monotonic() + patience
    for link in links.values():
        link.send("begin", *news)
    return list(links.values())


def _greet(connection: socket.socket, count: int, links: dict[int, Link]) -> Link | None:
    connection.settimeout(BEAT)
    link = Link(connection)
    match link.receive():
        case ["hello", int(index), int(their_count)]:
            if their_count != count:
                link.send("refused", f"process 0 has --num_processes={count}, not {their_count}")
            elif index in links or not 0 < index < count:
                link.send("refused", f"--process_id={index} is taken by another process")
            else:
                connection.settimeout(SILENCE)
                links[index] = link
                return link
    return None


def call(address: tuple[str, int], index: int, count: int, patience: float) -> tuple[Link, list]:
    """The others: the connection with process 0 at `address`, and its news.

    Raises:
        LostPeer: process 0 cannot be reached for `patience` seconds, or dies.
        UserError: process 0 refuses this process.
    """
    link = Link(_connect(address, count, patience))
    link.send("hello", index, count)
    while True:
        match link.receive():
            case ["begin", *news]:
                return link, news
            case ["refused", reason]:
                raise UserError(f"{reason}; start each process with an id of its own")
            case ["beat"]:
                pass
            case _:
                raise LostPeer(f"process 0 of {count} was lost; {MEND}")


def _connect(address: tuple[str, int], count: int, patience: float) -> socket.socket:
    until = time.monotonic() + patience
    while True:
        try:
            connection = socket.create_connection(address, timeout=SILENCE)
            # While nobody listens, a call within one machine may by chance reach itself.
            if connection.getsockname() != connection.getpeername():
                return connection
            connection.close()
        except OSError as error:
            if time.monotonic() > until:
                raise LostPeer(
                    f"process 0 of {count} does not answer at {_text(address)}: "
                    f"{error.strerror or error}; is it running, is the address right?"
                ) from error
        time.sleep(0.2)


def _text(address: Sequence) -> str:
    return f"[{address[0]}]:{address[1]}" if ":" in address[0] else f"{address[0]}:{address[1]}"


class Lifeline:
    """One process's share in ending together.

    Args:
        links: to process 0, or in process 0 to all others.
    """

    def __init__(self, index: int, count: int, links: list[Link]):
        self.index, self._count, self._links = index, count, links
        self.step: int | None = None
        self._own: int | None = None
        self._codes: dict[int, int] = {}
        self._said = threading.Condition()
        self._answers: queue.SimpleQueue = queue.SimpleQueue()
        self._ending = threading.Lock()
        for link in links:
            self._start(self._listen, link, links.index(link) + 1 if index == 0 else 0)
        self._start(self._beat)

    def _start(self, work, *arguments) -> threading.Thread:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        thread.start()
        return thread

    def first_says(self, work) -> Any:
        """See `cluster.first_says`."""
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
        """Return if nobody was lost within the last moments; else this process is being ended."""
        time.sleep(1.0)
        with self._ending:
            pass

    def leave(self, code: int) -> bool:
        """Say goodbye with an exit code and wait for the others': did all of them say it?"""
        with self._ending:
            self._own = code
        self._send("bye", self.index, code)
        with self._said:
            return self._said.wait_for(
                lambda: len(self._codes) == self._count - 1, 2 * GRACE if code in ALONE else None
            )

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
                    self._send("bye", who, code, but=link)
                    self._start(self._expect_own, who, code)
                case ["lost", str(reason)]:
                    self._end(reason)
        if peer not in self._codes:
            self._end(f"process {peer} of {self._count} was lost")
        self._end_unless_leaving(peer)

    def _expect_own(self, who: int, code: int) -> None:
        with self._said:
            self._codes[who] = code
            self._said.notify_all()
        time.sleep(GRACE if code in ALONE else PATIENCE)
        self._end_unless_leaving(who)

    def _end_unless_leaving(self, who: int) -> None:
        if self._own is None:
            code = self._codes[who]
            self._end(f"process {who} of {self._count} ended with exit code {code}")

    def _end(self, reason: str) -> NoReturn:
        self._ending.acquire()  # for good: the first reason counts
        if self.index == 0:
            self._send("lost", reason)
        after = "" if self.step is None else f" after step {self.step}"
        line = "" if self._own else f"error: {reason}{after}; {MEND}\n"
        if self.index == 0:
            time.sleep(0.3)  # the others read the reason before they see this process end
        exit_now(self._own or LostPeer.exit_code, line)


def exit_now(code: int, line: str = "") -> NoReturn:
    """End the process without its exit handlers, which could hang for those that are lost."""

    def speak():
        if line:
            os.write(2, f"\n{line}".encode() if os.isatty(2) else line.encode())
        sys.stdout.flush()
        sys.stderr.flush()

    # The main thread may hold a stream's lock for ever.
    speaking = threading.Thread(target=speak, daemon=True)
    speaking.start()
    speaking.join(2.0)
    os._exit(code)
