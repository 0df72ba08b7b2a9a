"""Rendezvous of processes: process 0 listens at a known address, the others connect to it."""

import socket
import time
from contextlib import suppress
from ipaddress import ip_address

from diffusion_jax.errors import LostPeer, UserError
from diffusion_jax.processes.heartbeat import BEAT, RESUME_HINT, SILENCE, Link

Address = tuple[str, int]


def meet(
    address: Address, index: int, count: int, timeout: float
) -> tuple[dict[int, Link], Address]:
    """Connect the processes `1 .. count - 1` with process 0, which listens at `address`.

    Args:
        timeout: seconds to wait; for process 0 they start again whenever a process connects.

    Returns:
        The links by process, and process 0's numeric address, whose port is free again.

    Raises:
        UserError: process 0 cannot listen there, or it refuses this process.
        LostPeer: another process does not connect in time, or process 0 cannot be reached or dies.
    """
    if index:
        return _call(address, index, count, timeout)
    with _listen(address) as server:
        links = _gather(server, count, timeout)
        found = server.getsockname()[:2]
    for link in links.values():
        link.send("begin")
    return links, found


def text(address: Address) -> str:
    """Format an address as `HOST:PORT`."""
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _listen(address: Address) -> socket.socket:
    try:
        family, *_, found = socket.getaddrinfo(*address, type=socket.SOCK_STREAM)[0]
        if not ip_address(found[0]).is_unspecified:
            return socket.create_server(found[:2], family=family)
        reason = "that stands for all interfaces"
    except OSError as error:
        reason = (error.strerror or str(error)).partition(" (while")[0]
    raise UserError(
        f"process 0 cannot listen at {text(address)}: {reason}; --coordinator must be one address "
        "of its machine and a free port"
    )


def _gather(server: socket.socket, count: int, timeout: float) -> dict[int, Link]:
    links: dict[int, Link] = {}
    server.settimeout(BEAT)
    until = time.monotonic() + timeout
    while len(links) < count - 1:
        for link in links.values():
            link.send("beat")
        if time.monotonic() > until:
            missing = [str(i) for i in range(1, count) if i not in links]
            raise LostPeer(
                f"process{'es' * (len(missing) > 1)} {', '.join(missing)} of {count} did not "
                f"connect within {timeout:g} s; start all with the same --coordinator and "
                "--num_processes, in a Slurm job with srun"
            )
        with suppress(TimeoutError):
            if _greet(server.accept()[0], count, links):
                until = time.monotonic() + timeout
    return links


def _greet(connection: socket.socket, count: int, links: dict[int, Link]) -> bool:
    connection.settimeout(BEAT)
    link = Link(connection)
    match link.receive():
        case ["hello", int(index), int(total)] if total != count:
            link.send("refused", f"process 0 has --num_processes={count}, this one {total}")
        case ["hello", int(index), int(total)] if index in links or not 0 < index < count:
            link.send("refused", f"another process has --process_id={index} already")
        case ["hello", int(index), int(total)]:
            connection.settimeout(SILENCE)
            links[index] = link
            return True
    return False


def _call(
    address: Address, index: int, count: int, timeout: float
) -> tuple[dict[int, Link], Address]:
    connection = _connect(address, count, timeout)
    link = Link(connection)
    link.send("hello", index, count)
    while True:
        match link.receive():
            case ["begin"]:
                return {0: link}, connection.getpeername()[:2]
            case ["refused", str(reason)]:
                raise UserError(
                    f"{reason}; give all the same --num_processes and each its own --process_id"
                )
            case ["beat"]:
                pass
            case _:
                raise LostPeer(f"process 0 of {count} was lost; {RESUME_HINT}")


def _connect(address: Address, count: int, timeout: float) -> socket.socket:
    until = time.monotonic() + timeout
    while True:
        try:
            connection = socket.create_connection(address, timeout=2 * BEAT)
            # While nobody listens, a connection within one machine may connect to itself.
            if connection.getsockname() != connection.getpeername():
                connection.settimeout(SILENCE)
                return connection
            connection.close()
        except OSError as error:
            if time.monotonic() > until:
                raise LostPeer(
                    f"process 0 of {count} does not answer at {text(address)} within "
                    f"{timeout:g} s: {error.strerror or error}; start it or correct --coordinator"
                ) from error
        time.sleep(0.2)
