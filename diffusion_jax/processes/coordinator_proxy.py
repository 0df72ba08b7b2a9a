"""A local TCP proxy that outlives the remote server.

JAX aborts a process, with ten lines of C++ and code 134, as soon as its connection to the
coordinator breaks. Through a proxy it does not notice, and there is time for an orderly exit.
"""

import socket
import threading
from contextlib import suppress


def open_proxy(far: tuple[str, int]) -> int:
    """Forward connections to the returned port of 127.0.0.1 to the server at `far`."""
    server = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=_serve, args=(server, far), daemon=True).start()
    return server.getsockname()[1]


def _serve(server: socket.socket, far: tuple[str, int]) -> None:
    while True:
        near, _ = server.accept()
        try:
            distant = socket.create_connection(far)
        except OSError:
            near.close()
            continue
        for end in (near, distant):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=_pump, args=(near, distant, True), daemon=True).start()
        threading.Thread(target=_pump, args=(distant, near, False), daemon=True).start()


def _pump(source: socket.socket, sink: socket.socket, closes: bool) -> None:
    with suppress(OSError):
        while data := source.recv(1 << 16):
            sink.sendall(data)
        if closes:
            sink.shutdown(socket.SHUT_WR)
