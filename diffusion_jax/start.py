"""Start a command so that Ctrl-C works from the first moment on.

This module imports nothing that takes long.
"""

import os
import signal
import sys
import threading
from importlib import import_module
from types import FrameType

AGAIN = 0.02  # seconds
# Exceptions that leave these functions are printed and dropped.
DROPPED_IN = {"_xla_gc_callback", "__del__"}


def start(command: str) -> None:
    """Run a command of `diffusion_jax.commands` with the arguments in `sys.argv`, and exit."""
    signal.signal(signal.SIGINT, _leave)
    run = import_module("diffusion_jax.command_line").run
    main = import_module(f"diffusion_jax.commands.{command}").main
    signal.signal(signal.SIGINT, _interrupt)
    run(main)


def _leave(number: int, frame: FrameType | None) -> None:
    """End at once: nothing has begun."""
    print("interrupted before anything began", file=sys.stderr, flush=True)
    os._exit(128 + signal.SIGINT)


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Raise KeyboardInterrupt; where it would be dropped, try again a moment later."""
    while frame is not None:
        if frame.f_code.co_name in DROPPED_IN:
            threading.Timer(AGAIN, os.kill, (os.getpid(), signal.SIGINT)).start()
            return
        frame = frame.f_back
    raise KeyboardInterrupt
