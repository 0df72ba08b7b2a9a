"""One line of a certificate: a law, what was measured, and the verdict."""

from typing import NamedTuple

HOLDS, FAILS, WARNS, UNJUDGED = "holds", "FAILS", "warns", "not judged"


class Law(NamedTuple):
    """A law and its verdict.

    subject: the function that it is about, by its key in the configuration and its name.
    statement: what must hold.
    measured: what was found.
    allowed: what is tolerated.
    verdict: one of `HOLDS`, `FAILS`, `WARNS`, `UNJUDGED`.
    note: where it fails, or why it cannot be judged.
    """

    subject: str
    statement: str
    measured: str
    allowed: str
    verdict: str
    note: str = ""


def at_most(subject: str, statement: str, value: float, limit: float, note: str = "") -> Law:
    """Judge a number that must not exceed a limit; a number that is not finite fails."""
    verdict = HOLDS if value <= limit else FAILS
    return Law(subject, statement, f"{value:.3g}", f"<= {limit:.3g}", verdict, note)


def at_least(subject: str, statement: str, value: float, limit: float, note: str = "") -> Law:
    """Judge a number that must not fall below a limit; a number that is not finite fails."""
    verdict = HOLDS if value >= limit else FAILS
    return Law(subject, statement, f"{value:.3g}", f">= {limit:.3g}", verdict, note)


def unjudged(subject: str, statement: str, why: str) -> Law:
    """Return a law that cannot be judged."""
    return Law(subject, statement, "-", "-", UNJUDGED, why)
