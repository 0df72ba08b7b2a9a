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

from diffusion_jax import paths
from diffusion_jax.errors import Diverged, LostPeer, Stopped, Uncertified, Unsaved, UserError
from diffusion_jax.processes import cluster

PREFIX = "--config."


class Parser(argparse.ArgumentParser):
    """An argument parser that reports errors in one line, as for any other bad input.

    Flags cannot be abbreviated: a later version could make an abbreviation ambiguous.

    Args:
        examples: commands shown at the end of --help.
    """

    def __init__(self, *arguments, examples: str = "", **options):
        options |= {"allow_abbrev": False, "epilog": examples}
        options |= {"formatter_class": argparse.RawDescriptionHelpFormatter}
        super().__init__(*arguments, **options)

    def add_config(self, help: str, required: bool = False) -> None:
        """Add `--config`, a configuration, and `--config.KEY`, which `split_overrides` takes."""
        self.add_argument(
            "--config",
            type=named,
            required=required,
            metavar="NAME_OR_FILE[:VARIANT]",
            help=help,
        )
        self.add_argument("--config.KEY", metavar="VALUE", help="set a key of the config")

    def add_plugins(self, help: str) -> None:
        """Add `--plugins`, the users' files that add entries to the tables."""
        self.add_argument("--plugins", type=as_paths, default=(), metavar="FILE[,FILE]", help=help)

    def error(self, message):
        raise UserError(f"{message}; see --help")


def split_overrides(arguments: list[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """Split off `--config.key=value` and `--config.key value`: `(other arguments, overrides)`.

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


def called_as(command: str) -> str:
    """Return how to call another command, written as this one was."""
    program = sys.argv[0]  # a script, or what `__main__` put there
    return f"python {command}.py" if program.endswith(".py") else f"{program} {command}"


def integer(text: str) -> int:
    """Parse an integer."""
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected an integer, got '{text}'") from None


def named(text: str) -> str:
    """Parse a non-empty name."""
    if not text:
        raise argparse.ArgumentTypeError("expected a name, got nothing")
    return text


def as_path(text: str) -> Path:
    """Parse a path."""
    try:
        return paths.as_path(text)
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def as_paths(text: str) -> list[Path]:
    """Parse paths that are separated by commas."""
    return [as_path(part) for part in text.split(",")]


def positive(text: str) -> int:
    """Parse an integer of at least 1."""
    value = integer(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {value}")
    return value


def number(text: str, most: float = sys.float_info.max) -> float:
    """Parse a finite number above 0 and at most `most`."""
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected a number, got '{text}'") from None
    if not 0.0 < value <= most:
        limit = f" and at most {most:g}" if most < sys.float_info.max else ""
        raise argparse.ArgumentTypeError(f"must be above 0{limit}, got {text}")
    return value


def fraction(text: str) -> float:
    """Parse a number above 0 and at most 1."""
    return number(text, most=1.0)


def seed(text: str) -> int:
    """Parse an integer that can seed a random key."""
    value = integer(text)
    if not 0 <= value < 2**31:
        raise argparse.ArgumentTypeError(f"must lie between 0 and {2**31 - 1}, got {value}")
    return value


def check_file(path: Path) -> None:
    """Create the folder of an output file, and check that the file can be written."""
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.touch()
        part.unlink()
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error


def run(command: Callable[[list[str]], None]) -> None:
    """Run a command and exit; errors that the user can act on are one line on stderr."""
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
    except (UserError, Diverged, LostPeer, Stopped, Uncertified, Unsaved) as error:
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
        # The reader of our output closed the pipe, so there is nobody to report to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0
