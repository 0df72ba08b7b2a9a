"""The folders `checkpoints/<step>/` of a run: which are complete, kept or removed."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from diffusion_jax.checkpoints import manifest
from diffusion_jax.files import sync_folder

RECORD = "about.json"
STATE = "state"  # beside the averaged parameters: everything else that training changes
SAVING = "saving-"
TRASH = "trash-"


class Keep(NamedTuple):
    """Which checkpoints to keep: the `last` newest, all multiples of `every`, the `best` by loss.

    last, best: how many. 0 disables `every` and `best`.
    """

    last: int
    every: int = 0
    best: int = 0


def complete(folder: Path) -> list[int]:
    """List the steps whose saves were finished, in order; the folder need not exist."""
    return sorted(int(path.name) for path in _numbered(folder) if manifest.exists(path))


def unnamed(folder: Path) -> list[int]:
    """List the numbered folders that hold no finished save, in order."""
    return sorted(int(path.name) for path in _numbered(folder) if not manifest.exists(path))


def damage(folder: Path, step: int, averages_only: bool = False) -> str | None:
    """Return what is wrong with a checkpoint's files, None if nothing is.

    Args:
        averages_only: the averaged parameters are enough, so `STATE` may be missing.
    """
    wrong = manifest.damage(folder / str(step), without=STATE)
    if wrong or averages_only or (folder / str(step) / STATE).exists():
        return wrong
    return f"its optimiser state ({STATE}/) is missing, so training cannot resume from it"


def newest_good(
    folder: Path, warn: Callable[[str], None], averages_only: bool = False
) -> int | None:
    """Return the newest step whose files are intact; warn of each newer one that is not."""
    for step in reversed(complete(folder)):
        wrong = damage(folder, step, averages_only)
        if wrong is None:
            return step
        if step not in complete(folder):  # removed by a training process: a newer one exists
            return newest_good(folder, warn, averages_only)
        warn(f"checkpoint {step} in {folder} is damaged and skipped: {wrong}")
    return None


def unfinished(folder: Path, step: int) -> Path:
    """Return the folder that a step is saved in until it is complete."""
    return folder / f"{SAVING}{step}"


def finish(folder: Path, step: int) -> None:
    """Rename the folder of a complete step to its final name."""
    unfinished(folder, step).rename(folder / str(step))
    sync_folder(folder)
    sync_folder(folder.parent)


def sweep(folder: Path) -> None:
    """Remove the remains of interrupted saves and removals; none may be in progress."""
    for path in [*folder.glob(f"{SAVING}*"), *folder.glob(f"{TRASH}*")]:
        shutil.rmtree(path, ignore_errors=True)


def set_aside(folder: Path, newest: int | None) -> None:
    """Rename incomplete and damaged steps, so that training can resume from the step `newest`."""
    sweep(folder)
    for path in _numbered(folder):
        if not manifest.exists(path):
            _rename(path, "incomplete")
        elif newest is None or int(path.name) > newest:
            _rename(path, "damaged")


def record(folder: Path, step: int) -> dict[str, Any]:
    """Read the record that was written beside the arrays of a step."""
    return json.loads((folder / str(step) / RECORD).read_text())


def to_keep(losses: dict[int, float | None], keep: Keep) -> set[int]:
    """Return the steps to keep, given the loss of each step, None if it has none."""
    steps = sorted(losses)
    known = [(loss, step) for step, loss in losses.items() if loss is not None]
    best = {step for _, step in sorted(known)[: keep.best]}
    every = {step for step in steps if keep.every and step % keep.every == 0}
    return {*steps[-keep.last :], *every, *best}


def prune(folder: Path, keep: Keep, warn: Callable[[str], None]) -> None:
    """Remove the steps not to be kept, and warn of each that cannot be removed.

    If the process is killed meanwhile, every step is either intact or in the trash.
    """
    losses = {step: _loss(folder, step) for step in complete(folder)}
    for step in losses.keys() - to_keep(losses, keep):
        try:
            (folder / str(step)).rename(folder / f"{TRASH}{step}")
        except OSError as error:
            warn(f"checkpoint {step} in {folder} could not be removed: {error.strerror}")
    sweep(folder)


def _loss(folder: Path, step: int) -> float | None:
    try:
        return record(folder, step)["losses"]["mean"]
    except (OSError, ValueError, LookupError, TypeError):
        return None  # damaged: restoring will say so, pruning need not


def _numbered(folder: Path) -> list[Path]:
    return [path for path in folder.glob("*") if path.name.isdigit() and path.is_dir()]


def _rename(path: Path, word: str) -> None:
    aside = path.with_name(f"{word}-{path.name}")
    shutil.rmtree(aside, ignore_errors=True)
    path.rename(aside)
