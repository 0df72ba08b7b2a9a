"""Errors that a user can cause or must act on, each with its exit code."""


class UserError(Exception):
    """Bad input: one line that says what is wrong, where, and how to fix it (exit code 2).

    Unprintable characters are escaped: a file name may hold line breaks or terminal commands.
    """

    exit_code = 2

    def __init__(self, message: str):
        super().__init__("".join(c if c.isprintable() else ascii(c)[1:-1] for c in message))


class Diverged(Exception):
    """Training produced non-finite values: the line says when, and what is saved (exit code 3)."""

    exit_code = 3


class LostPeer(Exception):
    """Another process of the run died, froze or never started (exit code 4)."""

    exit_code = 4


class Unsaved(Exception):
    """The last state is not on disk: the line says why, and what is saved (exit code 5)."""

    exit_code = 5


def unknown_name(kind: str, name: str, known) -> UserError:
    """Make the error for a name that is not in a table; it lists the names that are."""
    return UserError(f"unknown {kind} '{name}'; known: {', '.join(sorted(known))}")


class Stopped(Exception):
    """A signal stopped the run after its state was saved; the exit code is 128 + the signal."""

    def __init__(self, message: str, signal: int):
        super().__init__(message)
        self.exit_code = 128 + signal
