"""Checkpoints on disk: the only module that calls Orbax."""

import json
import re
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np
import orbax.checkpoint as ocp

from diffusion_jax.checkpoints import manifest, orbax_event_loop, step_folders
from diffusion_jax.checkpoints.step_folders import Keep
from diffusion_jax.errors import UserError
from diffusion_jax.files import replacing

# A named tuple of what training changes, with the fields `step` and `ema` among others.
SavedState = TypeVar("SavedState", bound=Any)


class Averaged(NamedTuple):
    """The averaged parameters after `step` updates: all that sampling and evaluation need."""

    step: Any
    ema: Any


class Outcome(NamedTuple):
    """How a save ended: with everything on disk, or with the reason why not."""

    step: int
    error: str | None


class SavedLosses(NamedTuple):
    """The mean loss by which a checkpoint is ranked, and sum and number of the losses after it."""

    mean: float | None
    total: float = 0.0
    count: int = 0


NO_LOSSES = SavedLosses(None)


class Checkpoints:
    """The folder `checkpoints/<step>/` of one run; `save` returns before the data is on disk.

    A step gets its final name last, once everything, its manifest included, is on disk.

    Args:
        about: what the parameters mean, as short texts; saved with them, compared on restoring.
        keep: which to keep; None opens the folder for reading.
        warn: called with one line for each damaged checkpoint.
    """

    def __init__(
        self,
        folder: Path,
        about: dict[str, str],
        keep: Keep | None = None,
        warn: Callable[[str], None] = lambda line: None,
    ):
        self._folder, self._about, self._keep, self._warn = folder.absolute(), about, keep, warn
        if keep is not None:
            orbax_event_loop.install()
        # Otherwise, if a folder cannot be created, threads would wait five minutes for it.
        options = ocp.options.AsyncOptions(create_directories_asynchronously=False)
        items = ocp.CompositeOptions(async_options=options)
        self._orbax = ocp.AsyncCheckpointer(
            ocp.CompositeCheckpointHandler(composite_options=items), async_options=options
        )
        self._background = ThreadPoolExecutor(1)
        self._pending: tuple[int, Future] | None = None

    def save(self, state: Any, losses: SavedLosses = NO_LOSSES) -> Outcome | None:
        """Wait for the previous save, start a new one, and return the previous one's outcome.

        `state` may be donated afterwards. Errors show in the outcome and are never raised here.

        Args:
            losses: the losses by which `keep` finds the best checkpoints.
        """
        before = self.wait()
        step = int(state.step)
        done: Future = Future()
        try:
            made = step_folders.unfinished(self._folder, step)
            self._orbax.save(made, _items(state, ocp.args.StandardSave))
            tree = described(state)
            note = {"about": self._about, "losses": losses._asdict(), "tree": tree}
            done = self._background.submit(self._finish, step, note)
        except Exception as error:  # on a full disk, Orbax raises all kinds of errors
            done.set_exception(error)
        self._pending = step, done
        return before

    def _finish(self, step: int, note: dict[str, Any]) -> None:
        self._orbax.wait_until_finished()
        if jax.process_index() > 0:
            return
        made = step_folders.unfinished(self._folder, step)
        with replacing(made / step_folders.RECORD) as file:
            json.dump(note, file, indent=1)
        manifest.write(made)
        step_folders.finish(self._folder, step)
        if self._keep is not None:
            step_folders.prune(self._folder, self._keep, self._warn)

    def losses(self, step: int) -> tuple[float, int]:
        """Return sum and number of the losses after the last mean, as saved at `step`."""
        if step not in step_folders.complete(self._folder):
            return 0.0, 0
        saved = step_folders.record(self._folder, step)["losses"]
        return saved["total"], saved["count"]

    def wait(self) -> Outcome | None:
        """Wait for the save in progress and return its outcome; None if there is none."""
        if self._pending is None:
            return None
        step, done = self._pending
        error = done.exception()
        self._pending = None
        if error is None:
            return Outcome(step, None)
        orbax_event_loop.join_threads("orbax")
        if jax.process_index() == 0:  # its remains take up space that the next one needs
            step_folders.sweep(self._folder)
        return Outcome(step, _reason(error))

    def finished(self) -> Outcome | None:
        """Return the outcome of the last save if it has ended; do not wait."""
        return self.wait() if self._pending is not None and self._pending[1].done() else None

    def latest(self) -> int | None:
        """Return the newest intact step, None if there is none."""
        return step_folders.newest_good(self._folder, self._warn)

    def restore(self, step: int, like: SavedState) -> SavedState:
        """Restore the state saved at `step`, on the devices and in the shapes of `like`.

        Raises:
            UserError: it was saved with other settings, or has other shapes or types.
        """
        self._check(step, like)
        restored = self._orbax.restore(
            self._folder / str(step), _items(_abstract(like), ocp.args.StandardRestore)
        )
        return like._replace(**{**restored["state"], "ema": restored["ema"]})

    def restore_ema(self, step: int | None, like: Any) -> Averaged:
        """Restore only the averaged parameters, of the given step or the newest.

        Raises:
            UserError: there is no such checkpoint, or it was saved with other settings.
        """
        found = self.find(step, averages_only=True)
        self._check(found, Averaged(np.int32(found), like))
        args = ocp.args.Composite(ema=ocp.args.StandardRestore(_abstract(like)))
        restored = self._orbax.restore(self._folder / str(found), args)
        return Averaged(np.int32(found), restored["ema"])

    def find(self, step: int | None, averages_only: bool = False) -> int:
        """Return the given step, or the newest intact one.

        Args:
            averages_only: checkpoints without optimiser state count as well.

        Raises:
            UserError: there is no such checkpoint, or it is damaged.
        """
        known = step_folders.complete(self._folder)
        if step is None:
            found = step_folders.newest_good(self._folder, self._warn, averages_only)
        else:
            found = step
        if found is None and known:
            wrong = step_folders.damage(self._folder, known[-1], averages_only)
            raise UserError(f"checkpoint {known[-1]} in {self._folder} is damaged: {wrong}")
        if found not in known:
            what = "no checkpoint" if step is None else f"no checkpoint of step {step}"
            there = f"there are: {', '.join(map(str, known))}" if known else "train first"
            raise UserError(f"{what} in {self._folder}; {there}")
        wrong = step is not None and step_folders.damage(self._folder, step, averages_only)
        if wrong:
            raise UserError(f"checkpoint {step} in {self._folder} is damaged: {wrong}")
        return found

    def _check(self, step: int, like: Any) -> None:
        note = step_folders.record(self._folder, step)
        where = f"checkpoint {step} in {self._folder}"
        for key, now in self._about.items():
            if note["about"].get(key) != now:
                raise UserError(
                    f"{where} was trained with the {key} "
                    f"{note['about'].get(key)}; config.json now says {now}; restore config.json"
                )
        changed = first_difference(note["tree"], described(like))
        if changed:
            raise UserError(f"{where} is of another network or optimiser: {changed}")

    def close(self) -> None:
        """Wait for the last save and release the folder."""
        self._background.shutdown()
        self._orbax.close()


def described(state: Any) -> dict[str, str]:
    """Return type and shape of every array in a state by its path, e.g. 'params/conv_in/bias'."""
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): f"{a.dtype}{list(np.shape(a))}"
        for path, a in leaves
    }


def first_difference(saved: dict[str, str], now: dict[str, str]) -> str | None:
    """Return the first array that differs between checkpoint and wanted state, None if none does.

    Groups that are not wanted at all, such as the optimiser's in sampling, are not compared.
    """
    wanted = {path.split("/")[0] for path in now}
    saved = {path: kind for path, kind in saved.items() if path.split("/")[0] in wanted}
    for path in {**now, **saved}:
        there, here = saved.get(path, "missing"), now.get(path, "missing")
        if there != here:
            return f"{path} is {there} in the checkpoint and {here} now"
    return None


def _items(state: Any, kind: Callable) -> ocp.args.Composite:
    # The average is an item of its own, so that sampling reads nothing else.
    return ocp.args.Composite(state=kind(state._replace(ema=None)._asdict()), ema=kind(state.ema))


def _abstract(tree: Any) -> Any:
    return jax.tree.map(ocp.utils.to_shape_dtype_struct, tree)


def _reason(error: BaseException) -> str:
    """Return the system's reason, the end of a message; Orbax puts its own paths before it."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return re.split(r" \[\w+=", text.rsplit(": ", 1)[-1].removesuffix("]"))[0]
