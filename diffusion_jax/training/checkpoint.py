"""Checkpoints on disk: the only file that knows Orbax."""

from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from absl import logging

from diffusion_jax.errors import UserError
from diffusion_jax.training.state import TrainState

logging.set_verbosity(logging.ERROR)

# The average is an item of its own, so that sampling reads nothing else.
ITEMS = ("state", "ema")


class Checkpoints:
    """The folder `checkpoints/<step>/` of one run; `save` returns before the data is on disk."""

    def __init__(self, folder: Path, keep: int | None = None):
        self._folder = folder
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep, create=keep is not None, step_prefix=None
        )
        self._manager = ocp.CheckpointManager(folder.resolve(), options=options, item_names=ITEMS)
        self._pending: int | None = None

    def save(self, state: TrainState) -> int | None:
        """Start to save; first wait for the save before it, and return the step of that one."""
        finished = self.wait()
        step = int(state.step)
        self._manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(state._replace(ema=None)._asdict()),
                ema=ocp.args.StandardSave(state.ema),
            ),
        )
        self._pending = step
        return finished

    def wait(self) -> int | None:
        """Wait until the last save is on disk; return its step, None if nothing was under way."""
        finished, self._pending = self._pending, None
        self._manager.wait_until_finished()
        return finished

    def latest(self) -> int | None:
        """The newest step whose save was completed, None if there is none."""
        steps = [step for step in self._manager.all_steps() if self._complete(step)]
        return max(steps, default=None)

    def _complete(self, step: int) -> bool:
        return all((self._folder / str(step) / item / "_METADATA").exists() for item in ITEMS)

    def restore(self, step: int, like: TrainState) -> TrainState:
        """The state saved at `step`, on the devices and in the shapes of `like`."""
        restored = self._manager.restore(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardRestore(_abstract(like._replace(ema=None)._asdict())),
                ema=ocp.args.StandardRestore(_abstract(like.ema)),
            ),
        )
        return TrainState(**{**restored["state"], "ema": restored["ema"]})

    def restore_ema(self, step: int | None, like: Any) -> tuple[int, Any]:
        """The averaged parameters alone, of the given step or the newest: `(step, ema)`.

        Raises:
            UserError: there is no such checkpoint.
        """
        found = self.latest() if step is None else step
        if found is None or not self._complete(found):
            known = ", ".join(str(s) for s in self._manager.all_steps() if self._complete(s))
            what = "no checkpoint" if step is None else f"no checkpoint of step {step}"
            raise UserError(
                f"{what} in {self._folder}; " + (f"there are: {known}" if known else "train first")
            )
        args = ocp.args.Composite(ema=ocp.args.StandardRestore(_abstract(like)))
        return found, self._manager.restore(found, args=args)["ema"]

    def close(self) -> None:
        """Wait for the last save and let go of the folder."""
        self._manager.close()


def _abstract(tree: Any) -> Any:
    return jax.tree.map(ocp.utils.to_shape_dtype_struct, tree)
