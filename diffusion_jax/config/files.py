"""Configurations: loaded from a file, changed on the command line, kept as strict JSON."""

import ast
import difflib
import functools
import importlib.util
import inspect
import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from diffusion_jax.config.keys import KEYS
from diffusion_jax.errors import UserError

Config = Any  # a ConfigDict, whose fields no type checker can know

CONFIGS = Path(__file__).parents[2] / "configs"
# Keys that may change on resuming, as may every key that ends in "_every". They affect updates only
# by rounding, except `train.steps`, at which a cosine decay ends.
MAY_CHANGE = (
    "data.dir",
    "data.stream",
    "data.workers",
    "model.remat",
    "parallel",
    "profile",
    "sample.batch_size",
    "train.accumulate",
    "train.keep",
    "train.keep_best",
    "train.max_skipped",
    "train.steps",
)
# Keys whose default is not what runs meant that were written before the key was there.
AS_IT_WAS: dict[str, Any] = {}
RENAMED: dict[str, str] = {}  # old names of keys, with the new ones


def default_config() -> Config:
    """Return every key with its default, locked against unknown ones."""
    values = {name: key.default for name, key in KEYS.items()}
    numbers = {name: placeholder(float) for name, value in values.items() if value is None}
    return ConfigDict(nested({**values, **numbers})).lock()


def load(spec: str, overrides: list[tuple[str, str]]) -> Config:
    """Load the configuration `FILE[:variant]` with its overrides, and lock it.

    Args:
        spec: path of a Python file that defines `get_config()`, or `get_config(variant)`.
        overrides: `(dotted key, text of the value)`.

    Raises:
        UserError: the file is missing or broken, a key is unknown, a value has the wrong type.
    """
    name, _, variant = spec.partition(":")
    path = Path(name)
    if not path.is_file():
        raise UserError(f"no config file {path}; see the files in configs/")
    config = _get_config(path, variant)
    _check_keys(config, path)
    for key, text in overrides:
        override(config, key, text)
    return config.lock()


def _get_config(path: Path, variant: str) -> Config:
    spec = importlib.util.spec_from_file_location(f"config_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise UserError(f"config {path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        if variant and not inspect.signature(module.get_config).parameters:
            raise UserError(f"config {path} has no variants; leave ':{variant}' out")
        config = module.get_config(variant) if variant else module.get_config()
    except UserError:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise UserError(f"config {path}{':' * bool(variant)}{variant} failed: {reason}") from error
    if not isinstance(config, ConfigDict):
        raise UserError(f"config {path}: get_config() must return a ConfigDict")
    return config


def _check_keys(config: Config, path: Path) -> None:
    own = flatten(config.to_dict())
    for key in own.keys() - KEYS.keys():
        raise UserError(f"config {path} has an unknown key '{key}'; nearest: '{_near(key, KEYS)}'")
    for key in KEYS.keys() - own.keys():
        raise UserError(f"config {path} lacks the key '{key}'; start from configs/default.py")


def _near(key: str, known: Iterable[str]) -> str:
    return difflib.get_close_matches(key, known, n=1, cutoff=0.0)[0]


def override(config: Config, key: str, text: str) -> None:
    """Set a dotted key to a value given as text, converted to the type of its present value.

    Raises:
        UserError: the key is unknown, or the value has the wrong type.
    """
    known = flatten(config.to_dict())
    if key not in known:
        raise UserError(f"no config key '{key}'; the nearest is '{_near(key, known)}'")
    *groups, leaf = key.split(".")
    group = config
    for name in groups:
        group = group[name]
    kind = group.get_type(leaf)
    try:
        group[leaf] = _parse(text, kind, known[key])
    except (ValueError, SyntaxError, TypeError) as error:
        raise UserError(f"--config.{key}={text}: expected {describe(kind)}") from error


def _parse(text: str, kind: type, default: Any) -> Any:
    if kind is bool:
        return ("false", "true").index(text.lower()) == 1
    if kind is float and not math.isfinite(float(text)):
        raise ValueError(text)
    if kind is not tuple:
        return kind(text)
    values = ast.literal_eval(text)
    values = tuple(values) if isinstance(values, tuple | list) else (values,)
    kinds = (int,) if all(isinstance(v, int) for v in default) and default else (int, float)
    if not all(type(v) in kinds for v in values):
        raise ValueError(values)
    return values


def describe(kind: Any) -> str:
    """Describe values of this type in words."""
    names = {int: "an integer", bool: "true or false", str: "text"}
    finite = {float: "a finite number", float | None: "a finite number"}
    return {**names, **finite}.get(kind, "numbers like 1,2,2")


def flatten(tree: dict, prefix: str = "") -> dict[str, Any]:
    """Flatten nested dicts into one with dotted keys; an empty dict counts as a value."""
    flat = {}
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value
    return flat


def nested(flat: dict[str, Any]) -> dict[str, Any]:
    """Return the inverse of `flatten`."""
    tree: dict[str, Any] = {}
    for name, value in flat.items():
        *groups, leaf = name.split(".")
        functools.reduce(lambda inner, each: inner.setdefault(each, {}), groups, tree)[leaf] = value
    return tree


def stretched(config: Config, steps: int) -> Config:
    """Rescale the training plan to another number of steps.

    Warm-up and the intervals of saves and sample grids keep their share of the run, and so does
    the horizon 1 / (1 - decay) of the averaged parameters.
    """
    changed = config.copy_and_resolve_references()
    factor = steps / config.train.steps

    def scaled(count: int) -> int:
        return max(round(count * factor), 1) if count else 0

    changed.train.steps = steps
    changed.train.save_every = scaled(config.train.save_every)
    changed.train.sample_every = scaled(config.train.sample_every)
    changed.optimizer.warmup_steps = scaled(config.optimizer.warmup_steps)
    changed.ema.decay = max(1.0 - (1.0 - config.ema.decay) / factor, 0.0)
    return changed


def to_json(config: Config) -> dict:
    """Return the configuration as plain JSON values, with lists for tuples."""
    return json.loads(json.dumps(config.to_dict(), allow_nan=False))


def from_json(tree: dict) -> Config:
    """Return the configuration that `to_json` wrote, locked."""

    def tuples(value):
        if isinstance(value, dict):
            return {key: tuples(inner) for key, inner in value.items()}
        return tuple(tuples(v) for v in value) if isinstance(value, list) else value

    return ConfigDict(tuples(tree)).lock()


def modernised(tree: dict) -> dict:
    """Translate the `to_json` of an older version: renamed keys, and keys that it lacks.

    Missing keys get the values that mean "as it was".

    Raises:
        UserError: it has a key that this version does not know.
    """
    values = {RENAMED.get(name, name): value for name, value in flatten(tree).items()}
    unknown = [name for name in values if name not in KEYS]
    if unknown:
        raise UserError(
            f"the run's config has the key '{unknown[0]}', which this version of diffusion_jax "
            "does not know; install the version that wrote it"
        )
    defaults = json.loads(json.dumps({name: key.default for name, key in KEYS.items()}))
    return nested({**defaults, **AS_IT_WAS, **values})


def deviations(config: Config) -> dict[str, Any]:
    """Return the values that differ from their key's default, as plain JSON, by dotted key.

    They identify a configuration, also after keys were added.
    """
    flat = flatten(to_json(config))
    defaults = json.loads(json.dumps({name: key.default for name, key in KEYS.items()}))
    return {name: value for name, value in flat.items() if value != defaults[name]}


def differences(old: dict, new: dict) -> list[str]:
    """List the keys that differ but must not change on resuming, as 'key (old -> new)'."""
    old, new = flatten(old), flatten(new)
    # With `train.minutes`, the number of steps may not change either.
    fixed = {"train.steps"} if new.get("train.minutes") else set()
    return [
        f"{key} ({old.get(key)} -> {new.get(key)})"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
        and (key in fixed or (key not in MAY_CHANGE and not key.endswith("_every")))
    ]
