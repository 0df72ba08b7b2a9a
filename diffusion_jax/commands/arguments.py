"""Command-line arguments: argparse for the flags, dotted keys for the configuration."""

import argparse
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import jax
from absl import logging

from diffusion_jax.errors import Diverged, LostPeer, Stopped, Unsaved, UserError
from diffusion_jax.processes import cluster

PREFIX = "--config."


class Parser(argparse.ArgumentParser):
    """An argument parser whose complaints are one line like any other bad input.

    Flags are to be written out: an abbreviation may mean another one in a later version.
    """

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, allow_abbrev=False, **options)

    def error(self, message):
        raise UserError(f"{message}; see --help")


def split_overrides(arguments: list[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """Take `--config.key=value` and `--config.key value` out: `(other arguments, overrides)`.

    Raises:
        UserError: a key has no value.
    """
    rest, overrides = [], []
    waiting = iter(arguments)
    for argument in waiting:
        if not argument.startswith(PREFIX):
            rest.append(argument)
            continue
        key, equals, value = argument.removeprefix(PREFIX).partition("=")
        if not equals:
            value = next(waiting, None)
            if value is None:
                raise UserError(f"{argument} has no value; write {argument}=VALUE")
        overrides.append((key, value))
    return rest, overrides


def integer(text: str) -> int:
    """A whole number."""
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected an integer, got '{text}'") from None


def named(text: str) -> str:
    """A name that is not empty."""
    if not text:
        raise argparse.ArgumentTypeError("expected a name, got nothing")
    return text


def as_path(text: str) -> Path:
    """A path that is not empty."""
    return Path(named(text))


def positive(text: str) -> int:
    """An integer of at least one."""
    value = integer(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {value}")
    return value


def number(text: str, most: float = sys.float_info.max) -> float:
    """A finite number above 0, at most `most`."""
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a number, got '{text}'") from None
    if not 0.0 < value <= most:
        limit = f" and at most {most:g}" if most < sys.float_info.max else ""
        raise argparse.ArgumentTypeError(f"must be above 0{limit}, got {text}")
    return value


def fraction(text: str) -> float:
    """A number above 0, at most 1."""
    return number(text, most=1.0)


def seed(text: str) -> int:
    """An integer that a random key can be made of."""
    value = integer(text)
    if not 0 <= value < 2**31:
        raise argparse.ArgumentTypeError(f"must lie between 0 and {2**31 - 1}, got {value}")
    return value


def check_file(path: Path) -> None:
    """Make the folder of a file that is to be written, and see that it can be."""
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.touch()
        part.unlink()
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error


def run(command: Callable[[list[str]], None]) -> None:
    """Run a command and leave the program: errors for a person are one line on stderr."""
    logging.set_verbosity(logging.FATAL)  # Orbax would log a failed save once more, in 400 lines
    try:
        code = _run(command)
    except Exception:
        cluster.settle()
        traceback.print_exc()
        code = 1
    cluster.leave(code)
    sys.exit(code)


def _run(command: Callable[[list[str]], None]) -> int:
    try:
        command(sys.argv[1:])
    except (UserError, Diverged, LostPeer, Stopped, Unsaved) as error:
        print(f"error: {error}" if not isinstance(error, Stopped) else error, file=sys.stderr)
        return error.exit_code
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        reason = str(error).splitlines()[0]
        print(f"error: {reason}; try a smaller batch size", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; what was saved before is intact", file=sys.stderr)
        return 128 + signal.SIGINT
    except BrokenPipeError:
        # The reader of our output left; there is nobody to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0
