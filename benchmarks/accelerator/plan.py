"""The stages, the most valuable first, and how a time is shared among them."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from diffusion_jax.errors import UserError


class Stage(NamedTuple):
    """A stage's part of the time, as seconds of eight minutes; the seconds it needs at least."""

    part: float
    least: float


STAGES = {
    "device": Stage(20.0, 5.0),
    "tests": Stage(60.0, 15.0),
    "step": Stage(120.0, 20.0),
    "sample": Stage(45.0, 10.0),
    "train": Stage(235.0, 40.0),
}


def chosen(text: str) -> list[str]:
    """Return the names in a list like 'step,sample', in the order of `STAGES`.

    Raises:
        UserError: one is no stage.
    """
    names = text.split(",")
    for name in names:
        if name not in STAGES:
            raise UserError(f"--stages: no stage '{name}'; there are: {', '.join(STAGES)}")
    return [name for name in STAGES if name in names]


def check_time(names: Sequence[str], seconds: float) -> None:
    """Refuse a time in which not even the first stage is done.

    Raises:
        UserError: with the time that all stages need at least.
    """
    if share(names, seconds) < STAGES[names[0]].least:
        needed = sum(STAGES[name].least for name in names) / 60.0
        raise UserError(
            f"--minutes {seconds / 60.0:.3g} is too short for the stage '{names[0]}'; "
            f"give at least {needed:.2g}, or fewer --stages"
        )


def share(names: Sequence[str], seconds: float) -> float:
    """Return the seconds of the first of the stages that are still to come.

    What one stage leaves over goes to those after it, and the last one gets all that is left.
    """
    parts = [STAGES[name].part for name in names]
    return max(seconds * parts[0] / sum(parts), min(STAGES[names[0]].least, seconds))


def following(names: Sequence[str]) -> Iterator[Sequence[str]]:
    """Yield the stages that are still to come, from all of them down to the last one."""
    for first in range(len(names)):
        yield names[first:]
