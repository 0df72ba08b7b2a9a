"""Checkpoints on disk: the only file that knows Orbax."""

import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from diffusion_jax.errors import UserError
from diffusion_jax.training.state import TrainState

# The average is an item of its own, so that sampling reads nothing else.
ITEMS = ("state", "ema")


class Checkpoints:
    """The folder `checkpoints/<step>/` of one run; `save` returns before the data is on disk.

    Args:
        about: what the parameters mean, as short texts; saved with them, compared on restoring.
        keep: how many to keep; None opens the folder for reading.
    """

    def __init__(self, folder: Path, about: dict[str, str], keep: int | None = None):
        self._folder, self._about = folder, about
        if keep is not None:
            self._set_incomplete_aside()
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep, create=keep is not None, step_prefix=None
        )
        self._manager = ocp.CheckpointManager(
            folder.resolve(), options=options, item_names=(*ITEMS, "about")
        )
        self._pending: int | None = None

    def save(self, state: TrainState) -> int | None:
        """Start to save; first wait for the save before it, and return the step of that one."""
        finished = self.wait()
        step = int(state.step)
        accepted = self._manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(state._replace(ema=None)._asdict()),
                ema=ocp.args.StandardSave(state.ema),
                about=ocp.args.JsonSave(self._about),
            ),
        )
        if not accepted:
            raise RuntimeError(f"{self._folder} did not take the checkpoint of step {step}")
        self._pending = step
        return finished

    def wait(self) -> int | None:
        """Wait until the last save is on disk; return its step, None if nothing was under way."""
        finished, self._pending = self._pending, None
        self._manager.wait_until_finished()
        return finished

    def finished(self) -> int | None:
        """The step of the last save if it has reached the disk by now; does not wait."""
        return None if self._manager.is_saving_in_progress() else self.wait()

    def latest(self) -> int | None:
        """The newest step whose save was completed, None if there is none."""
        return newest_step(self._folder)

    def _set_incomplete_aside(self) -> None:
        """Rename half-made step folders: Orbax would count them and then refuse earlier steps."""
        for path in _step_folders(self._folder):
            if not _is_complete(path):
                aside = path.with_name(f"incomplete-{path.name}")
                shutil.rmtree(aside, ignore_errors=True)
                path.rename(aside)

    def restore(self, step: int, like: TrainState) -> TrainState:
        """The state saved at `step`, on the devices and in the shapes of `like`.

        Raises:
            UserError: the parameters mean something else by now.
        """
        self._check_meaning(step)
        restored = self._manager.restore(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardRestore(_abstract(like._replace(ema=None)._asdict())),
                ema=ocp.args.StandardRestore(_abstract(like.ema)),
            ),
        )
        return TrainState(**{**restored["state"], "ema": restored["ema"]})

    def restore_ema(self, step: int | None, like: Any) -> TrainState:
        """A state that holds the averaged parameters alone, of the given step or the newest.

        Raises:
            UserError: there is no such checkpoint, or its parameters mean something else by now.
        """
        found = self.find(step)
        self._check_meaning(found)
        args = ocp.args.Composite(ema=ocp.args.StandardRestore(_abstract(like)))
        ema = self._manager.restore(found, args=args)["ema"]
        return TrainState(np.int32(found), None, ema, None, None)

    def find(self, step: int | None) -> int:
        """The given step, or the newest.

        Raises:
            UserError: there is no such checkpoint.
        """
        known = complete_steps(self._folder)
        found = max(known, default=None) if step is None else step
        if found not in known:
            what = "no checkpoint" if step is None else f"no checkpoint of step {step}"
            there = f"there are: {', '.join(map(str, known))}" if known else "train first"
            raise UserError(f"{what} in {self._folder}; {there}")
        return found

    def _check_meaning(self, step: int) -> None:
        saved = self._manager.restore(step, args=ocp.args.Composite(about=ocp.args.JsonRestore()))[
            "about"
        ]
        for key, now in self._about.items():
            if saved.get(key) != now:
                raise UserError(
                    f"checkpoint {step} in {self._folder} was trained with the {key} "
                    f"{saved.get(key)}; config.json now says {now}; restore config.json"
                )

    def close(self) -> None:
        """Wait for the last save and let go of the folder."""
        self._manager.close()


def _abstract(tree: Any) -> Any:
    return jax.tree.map(ocp.utils.to_shape_dtype_struct, tree)


def complete_steps(folder: Path) -> list[int]:
    """The steps in a run's checkpoint folder whose saves were completed, in order."""
    return sorted(int(path.name) for path in _step_folders(folder) if _is_complete(path))


def newest_step(folder: Path) -> int | None:
    """The last of `complete_steps`, None if there is none; the folder need not exist."""
    return max(complete_steps(folder), default=None)


def _step_folders(folder: Path) -> list[Path]:
    return [path for path in folder.glob("*") if path.name.isdigit()]


def _is_complete(path: Path) -> bool:
    return all((path / item / "_METADATA").exists() for item in ITEMS)
