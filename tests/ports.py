"""Free ports for tests, from below the range that the system hands out to others."""

import itertools
import os
import socket

_candidates = itertools.count(20_000 + os.getpid() % 10_000)


def free_port(candidates=_candidates) -> int:
    """The first port of 127.0.0.1 at which nobody listens; never the same one twice."""
    for port in candidates:
        try:
            with socket.create_server(("127.0.0.1", port)):
                return port
        except OSError:
            continue
    raise AssertionError("no port is free")
