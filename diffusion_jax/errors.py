"""Errors that a user can cause or must act on, each with its exit code."""


def printable(text: str) -> str:
    """Escape unprintable characters: a file name may hold line breaks or terminal commands."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


class UserError(Exception):
    """Bad input: one printable line on what is wrong, where, and how to fix it (exit code 2)."""

    exit_code = 2

    def __init__(self, message: str):
        super().__init__(printable(message))


class Diverged(Exception):
    """Non-finite values in training or evaluation: the line says where (exit code 3)."""

    exit_code = 3


class LostPeer(Exception):
    """The loss of another process of the run, which died, froze or never started (exit code 4)."""

    exit_code = 4


class Uncertified(Exception):
    """Laws that a configuration breaks: the line names the first (exit code 6)."""

    exit_code = 6


class Unsaved(Exception):
    """A failed save that ended the run: the line says why (exit code 5)."""

    exit_code = 5


def unknown_name(kind: str, name: str, known) -> UserError:
    """Make the error for a name that is not in a table; it lists the names that are."""
    return UserError(f"unknown {kind} '{name}'; known: {', '.join(sorted(known))}")


def counted(number: int, noun: str) -> str:
    """Return a number and its noun: "1 step", "2 steps", "1,437 images"."""
    many = f"{noun}es" if noun.endswith(("s", "ch")) else f"{noun}s"
    return f"{number:,} {noun if number == 1 else many}"


class Stopped(Exception):
    """A stop by a signal, after the state was saved; the exit code is 128 + the signal."""

    def __init__(self, message: str, signal: int):
        super().__init__(message)
        self.exit_code = 128 + signal
