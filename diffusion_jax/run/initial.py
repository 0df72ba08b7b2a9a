"""Begin a run with the weights of another one."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
from jax.tree_util import keystr, tree_leaves_with_path, tree_map_with_path

from diffusion_jax import build
from diffusion_jax.checkpoints import step_folders
from diffusion_jax.configuration import Config
from diffusion_jax.errors import UserError, counted
from diffusion_jax.models.packing import pack, unpack
from diffusion_jax.paths import as_path
from diffusion_jax.run import record
from diffusion_jax.run.load import restore

NAMED = 8  # arrays that one line names


class Weights(NamedTuple):
    """Parameters and average that a run begins with, by path, without those that do not fit.

    shapes: those of all parameters of the network that begins with them.
    name: where they are from, as `RUN:STEP`.
    notes: lines for the user.
    """

    params: dict[str, Any]
    ema: dict[str, Any]
    shapes: Any
    name: str
    notes: tuple[str, ...]


def parse(init: str) -> tuple[Path, int | None]:
    """Parse `RUN` or `RUN:STEP`."""
    path, colon, step = init.rpartition(":")
    return (as_path(path), int(step)) if colon and step.isdecimal() else (as_path(init), None)


def recorded(folder: Path) -> str:
    """Return the weights that a run's config.json says it began with; '' if there is no such."""
    path = folder / "config.json"
    return record.read_json(path).get("init", "") if path.exists() else ""


def check_same(folder: Path, init: str) -> None:
    """Refuse to resume a run with an `--init` other than the one that it began with.

    Raises:
        UserError: it began with other weights, or with random ones.
    """
    before = recorded(folder)
    if before:
        (old, old_step), (new, new_step) = parse(before), parse(init)
        if old.resolve() == new.resolve() and new_step in (None, old_step):
            return
    began = f"began with the weights of {before}" if before else "began with random weights"
    raise UserError(
        f"{folder} holds a run that {began}; choose another --workdir for --init={init}, or leave "
        "--init out to resume it"
    )


def weights(
    init: str, config: Config, diffusion: build.Diffusion, warn: Callable[[str], None]
) -> Weights:
    """Read those weights of a run that fit the network of another one.

    Args:
        init: `RUN` or `RUN:STEP`; by default the newest intact checkpoint.
        config, diffusion: of the run that is to begin with them.

    Raises:
        UserError: there is no such run or checkpoint, or nothing of it fits.
    """
    folder, step = parse(init)
    other = record.read(folder)
    source = build.diffusion(other.config, other.data)
    found, ema = restore(other, source, step, raw=False, warn=warn)
    notes = [_meaning(other.config.prediction, config.prediction)]
    if step_folders.damage(other.checkpoints, found) is None:
        _, params = restore(other, source, found, raw=True, warn=warn)
    else:
        params = ema
        notes.append(
            "that checkpoint has no optimiser state, so parameters and average both "
            "start as its average"
        )
    wanted, have = _flat(diffusion.shapes), _flat(ema)
    fitting = {path for path, a in have.items() if path in wanted and wanted[path].shape == a.shape}
    if not fitting:
        raise UserError(f"--init={init}: none of that run's arrays fits this network")
    notes.append(_left_out(wanted, have, fitting))
    own, average = ({p: _flat(tree)[p] for p in fitting} for tree in (params, ema))
    name = f"{folder.resolve()}:{found}"
    return Weights(own, average, diffusion.shapes, name, tuple(filter(None, notes)))


def adopt(state: Any, weights: Weights) -> Any:
    """Return a new run's state with these parameters and average; `state` is used up."""

    def replaced(packed: Any, own: Any) -> Any:
        tree = unpack(packed, weights.shapes)
        return pack(tree_map_with_path(lambda path, drawn: own.get(_text(path), drawn), tree))

    def merge(state: Any, params: Any, ema: Any) -> Any:
        return state._replace(params=replaced(state.params, params), ema=replaced(state.ema, ema))

    places = jax.tree.map(lambda a: a.sharding, state)
    merging = jax.jit(merge, out_shardings=places, donate_argnums=0)
    return merging(state, jax.device_get(weights.params), jax.device_get(weights.ema))


def _meaning(before: str, after: str) -> str:
    return "" if before == after else f"that network predicted {before}, this one predicts {after}"


def _left_out(wanted: dict, have: dict, fitting: set) -> str:
    """Return a line that names the arrays initialised at random and those not used."""
    new, unused = sorted(wanted.keys() - fitting), sorted(have.keys() - wanted.keys())
    parts = [
        f"{counted(len(names), 'array')} {what} ({', '.join(names[:NAMED])}"
        f"{', ...' if len(names) > NAMED else ''})"
        for names, what in ((new, "initialised at random"), (unused, "not used"))
        if names
    ]
    return "; ".join(parts)


def _text(path: Any) -> str:
    return keystr(path, simple=True, separator="/")


def _flat(tree: Any) -> dict[str, Any]:
    return {_text(path): leaf for path, leaf in tree_leaves_with_path(tree)}
