"""Free ports for tests, from below the range that the system hands out to others."""

import random
import socket

PORTS = range(20_000, 32_000)
_given: set[int] = set()


def free_port(ports=PORTS) -> int:
    """Return a port of 127.0.0.1 at which nobody listens, and which was not returned before.

    It is drawn at random, because other test processes look for ports at the same time.
    """
    for port in random.SystemRandom().sample(ports, len(ports)):
        if port in _given:
            continue
        _given.add(port)
        try:
            with socket.create_server(("127.0.0.1", port)):
                return port
        except OSError:
            continue
    raise AssertionError("no port is free")
