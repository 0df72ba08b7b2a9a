"""The errors a person can cause or has to act on, each with the exit code that reports it."""


class UserError(Exception):
    """Bad input: one line that says what is wrong, where, and the mend (exit code 2).

    What cannot be printed is escaped: a file's name may hold line breaks or a terminal's commands.
    """

    exit_code = 2

    def __init__(self, message: str):
        super().__init__("".join(c if c.isprintable() else ascii(c)[1:-1] for c in message))


class Diverged(Exception):
    """Training left the finite numbers: the line says when and what is safe (exit code 3)."""

    exit_code = 3


class LostPeer(Exception):
    """Another process of the run died, froze or never came (exit code 4)."""

    exit_code = 4


class Unsaved(Exception):
    """The last state is not on disk: the line says why, and what is (exit code 5)."""

    exit_code = 5


def unknown_name(kind: str, name: str, known) -> UserError:
    """The error for a name that is in no table: it lists the names that are."""
    return UserError(f"unknown {kind} '{name}'; known: {', '.join(sorted(known))}")


class Stopped(Exception):
    """A signal stopped the run and the state is saved; the exit code is 128 + the signal."""

    def __init__(self, message: str, signal: int):
        super().__init__(message)
        self.exit_code = 128 + signal
