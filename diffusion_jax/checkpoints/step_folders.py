"""The folders `checkpoints/<step>/` of a run: which count, which are kept, which go."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from diffusion_jax.checkpoints import manifest
from diffusion_jax.files import sync_folder

RECORD = "about.json"
SAVING = "saving-"
TRASH = "trash-"


class Keep(NamedTuple):
    """Which checkpoints stay: the `last` newest, every step that `every` divides, the `best`.

    best: how many of those with the lowest loss; 0 for `every` and `best` is none.
    """

    last: int
    every: int = 0
    best: int = 0


def complete(folder: Path) -> list[int]:
    """The steps whose saves were finished, in order; the folder need not exist."""
    return sorted(int(path.name) for path in _numbered(folder) if manifest.exists(path))


def unnamed(folder: Path) -> list[int]:
    """The numbered folders that hold no finished save, in order."""
    return sorted(int(path.name) for path in _numbered(folder) if not manifest.exists(path))


def damage(folder: Path, step: int) -> str | None:
    """What is wrong with a checkpoint's files, None if nothing is."""
    return manifest.damage(folder / str(step))


def newest_good(folder: Path, warn: Callable[[str], None]) -> int | None:
    """The newest step whose files verify; a line to `warn` for each newer one that does not."""
    for step in reversed(complete(folder)):
        wrong = damage(folder, step)
        if wrong is None:
            return step
        if step not in complete(folder):  # a trainer removed it meanwhile: a newer one is there
            return newest_good(folder, warn)
        warn(f"checkpoint {step} in {folder} is damaged and left out: {wrong}")
    return None


def unfinished(folder: Path, step: int) -> Path:
    """Where a step is saved until it is whole."""
    return folder / f"{SAVING}{step}"


def finish(folder: Path, step: int) -> None:
    """Give a step that is whole its name."""
    unfinished(folder, step).rename(folder / str(step))
    sync_folder(folder)
    sync_folder(folder.parent)


def sweep(folder: Path) -> None:
    """Remove what saves and removals that were cut off have left; none may be under way."""
    for path in [*folder.glob(f"{SAVING}*"), *folder.glob(f"{TRASH}*")]:
        shutil.rmtree(path, ignore_errors=True)


def set_aside(folder: Path, newest: int | None) -> None:
    """Get half-made and damaged steps out of the way of training on from the step `newest`."""
    sweep(folder)
    for path in _numbered(folder):
        if not manifest.exists(path):
            _rename(path, "incomplete")
        elif newest is None or int(path.name) > newest:
            _rename(path, "damaged")


def record(folder: Path, step: int) -> dict[str, Any]:
    """What was written beside the arrays of a step."""
    return json.loads((folder / str(step) / RECORD).read_text())


def to_keep(losses: dict[int, float | None], keep: Keep) -> set[int]:
    """Which of some steps stay, given the loss of each, None where there is none."""
    steps = sorted(losses)
    known = [(loss, step) for step, loss in losses.items() if loss is not None]
    best = {step for _, step in sorted(known)[: keep.best]}
    every = {step for step in steps if keep.every and step % keep.every == 0}
    return {*steps[-keep.last :], *every, *best}


def prune(folder: Path, keep: Keep, warn: Callable[[str], None]) -> None:
    """Remove what is not to be kept; a kill on the way leaves each step whole or in the trash.

    A line to `warn` for each that cannot be removed.
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
