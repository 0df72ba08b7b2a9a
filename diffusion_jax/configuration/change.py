"""Change configurations: by text from a command line, by values, or to another length."""

import ast
import difflib
import functools
import math
from collections.abc import Iterable, Mapping
from typing import Any, get_args

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from diffusion_jax.configuration.as_json import Config, flatten
from diffusion_jax.configuration.keys import Key, keys
from diffusion_jax.configuration.tables import TABLES, names_of
from diffusion_jax.errors import UserError

# What other code bases call our keys.
MEANT = {
    "lr": "optimizer.learning_rate",
    "learning_rate": "optimizer.learning_rate",
    "weight_decay": "optimizer.weight_decay",
    "dropout": "model.dropout",
    "image_size": "data.image_size",
    "batch_size": "train.batch_size",
    "batch": "train.batch_size",
    "bs": "train.batch_size",
    "epochs": "train.steps",
    "iterations": "train.steps",
    "max_steps": "train.steps",
    "num_steps": "train.steps",
    "timesteps": "schedule.steps",
    "num_timesteps": "schedule.steps",
    "diffusion_steps": "schedule.steps",
    "T": "schedule.steps",
    "beta_schedule": "schedule.name",
    "noise_schedule": "schedule.name",
    "dataset": "data.name",
    "resolution": "data.image_size",
    "size": "data.image_size",
    "num_workers": "data.workers",
    "grad_clip": "optimizer.clip_norm",
    "warmup": "optimizer.warmup_steps",
    "ema_decay": "ema.decay",
    "ema_rate": "ema.decay",
    "num_classes": "model.classes",
    "class_cond": "model.classes",
    "num_channels": "model.channels",
    "num_res_blocks": "model.blocks",
    "channel_mult": "model.multipliers",
    "guidance_scale": "sample.guidance",
    "cfg_scale": "sample.guidance",
    "num_samples": "sample.num",
    "objective": "prediction",
    "prediction_type": "prediction",
    "parameterization": "prediction",
}


def nearest(key: str, known: Iterable[str]) -> str:
    """Return the known key that an unknown one probably means.

    This is our key for a name used by other code bases, or else the most similar key, in the same
    group if there is one.
    """
    known = list(known)
    group, _, leaf = key.rpartition(".")
    if leaf in MEANT and MEANT[leaf] in known:
        return MEANT[leaf]
    known = [name for name in known if group and name.startswith(f"{group}.")] or known
    return difflib.get_close_matches(key, known, n=1, cutoff=0.0)[0]


def override(config: Config, key: str, text: str) -> None:
    """Set a dotted key to a value given as text, converted to the type of its present value.

    Raises:
        UserError: the key is unknown, or the value has the wrong type.
    """
    group, leaf = _find(config, key)
    kind = group.get_type(leaf)
    try:
        _set(config, key, _parse(text, kind, group[leaf]))
    except (ValueError, SyntaxError, TypeError) as error:
        raise UserError(f"--config.{key}={text}: expected {describe(kind)}") from error


def changed(config: Config, changes: Mapping[str, Any]) -> Config:
    """Return a copy with other values, given by key and by group: `{"train": {"steps": 200}}`.

    Raises:
        UserError: a key is unknown, or a value has the wrong type.
    """
    new = config.copy_and_resolve_references()
    values = {key: value for key, value in flatten(_plain(changes)).items() if value != {}}
    for key in names_first(values):
        group, leaf = _find(new, key)
        kind, value = group.get_type(leaf), values[key]
        try:
            _set(new, key, tuple(value) if isinstance(value, list) else value)
        except TypeError as error:
            raise UserError(f"config.{key} is {value!r:.50}; expected {describe(kind)}") from error
    return new


def names_first(names: Iterable[str]) -> list[str]:
    """Sort keys so that those which name a function come before the keys that are its arguments."""
    return sorted(names, key=lambda name: name not in TABLES)


def _plain(value: Any) -> Any:
    """Turn configurations into dicts, and NumPy's numbers and arrays into Python's."""
    if isinstance(value, ConfigDict):
        value = value.to_dict()
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    return value.tolist() if hasattr(value, "tolist") else value


def _find(config: Config, key: str) -> tuple[Config, str]:
    """Return the group that holds a dotted key, and the key's last name."""
    known = flatten(config.to_dict())
    if any(name.startswith(f"{key}.") for name in known):
        inside = next(name for name in known if name.startswith(f"{key}."))
        raise UserError(f"config.{key} is a group of keys; set those in it, such as '{inside}'")
    if key not in known:
        raise UserError(f"no config key '{key}'; the nearest is '{nearest(key, known)}'")
    return _group(config, key)


def _group(config: Config, key: str) -> tuple[Config, str]:
    *groups, leaf = key.split(".")
    return functools.reduce(lambda group, name: group[name], groups, config), leaf


def _set(config: Config, key: str, value: Any) -> None:
    group, leaf = _find(config, key)
    if key not in TABLES or value == group[leaf] or value not in TABLES[key]:
        group[leaf] = value
        return
    flat = flatten(config.to_dict())
    before, after = keys(names_of(flat)), keys(names_of({**flat, key: value}))
    with config.unlocked():
        group[leaf] = value
        for name, meant in after.items():
            if name not in before or (key == "model.name" and _is_field(name, flat, before)):
                _put(config, name, held(meant))
        for name in before.keys() - after.keys():
            inner, last = _group(config, name)
            del inner[last]


def _is_field(name: str, flat: Mapping[str, Any], before: Mapping[str, Key]) -> bool:
    """Return whether a key belongs to the network alone; a number of classes belongs to the run."""
    if name == "model.classes":
        return flat[name] == before[name].default
    return name.startswith("model.") and name != "model.name"


def _put(config: Config, key: str, value: Any) -> None:
    group, leaf = _group(config, key)
    group[leaf] = value


def with_arguments(config: Config) -> Config:
    """Add the arguments of the functions that a configuration names, if it lacks them."""
    flat = flatten(config.to_dict())
    with config.unlocked():
        for name, key in keys(names_of(flat)).items():
            if key.users and name not in flat:
                _put(config, name, held(key))
    return config


def held(key: Key) -> Any:
    """Return a key's default; where that is None, a place for a value of the key's type."""
    return placeholder(get_args(key.type)[0]) if key.default is None else key.default


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
    kind = get_args(kind)[0] if type(None) in get_args(kind) else kind
    names = {int: "an integer", bool: "true or false", str: "text", float: "a finite number"}
    return names.get(kind, "numbers like 1,2,2")


def with_shorter_warmup(config: Config) -> Config:
    """Cut a warm-up that is not shorter than the run to a tenth of the run."""
    part, steps = config.optimizer, config.train.steps
    if not part.shorten_warmup or part.warmup_steps < steps:
        return config
    return changed(config, {"optimizer": {"warmup_steps": steps // 10}})


def stretched(config: Config, steps: int) -> Config:
    """Rescale the training plan to another number of steps.

    Warm-up and the intervals of saves and sample grids keep their share of the run, and so does
    the horizon 1 / (1 - decay) of the averaged parameters.
    """
    new = config.copy_and_resolve_references()
    factor = steps / config.train.steps

    def scaled(count: int) -> int:
        return max(round(count * factor), 1) if count else 0

    new.train.steps = steps
    new.train.save_every = scaled(config.train.save_every)
    new.train.sample_every = scaled(config.train.sample_every)
    new.optimizer.warmup_steps = scaled(config.optimizer.warmup_steps)
    new.ema.decay = max(1.0 - (1.0 - config.ema.decay) / factor, 0.0)
    return new
