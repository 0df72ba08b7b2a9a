"""Configurations as strict JSON: written, read, compared, and translated from older versions."""

import functools
import json
from typing import Any

from ml_collections import ConfigDict

from diffusion_jax.configuration.keys import Key, keys
from diffusion_jax.configuration.tables import names_of
from diffusion_jax.errors import UserError

Config = Any  # a ConfigDict, whose fields no type checker can know

# Keys that may change on resuming, as may every key that ends in "_every". They affect updates only
# by rounding, except `train.steps`, at which a cosine decay ends, and `data.changed`.
MAY_CHANGE = (
    "data.changed",
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
# Values for keys that old runs lack and whose present default differs from what those runs did.
AS_IT_WAS: dict[str, Any] = {
    "data.background": "",
    "data.exif": False,
    "optimizer.shorten_warmup": False,
    "sample.churn_first": False,
}
RENAMED: dict[str, str] = {}  # old names of keys, with the new ones


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

    Missing keys get the values that keep the old behaviour.

    Raises:
        UserError: it has a key that this version does not know.
    """
    values = {RENAMED.get(name, name): value for name, value in flatten(tree).items()}
    known = keys(names_of(values))
    unknown = [name for name in values if name not in known]
    if unknown:
        raise UserError(
            f"the run's config has the key '{unknown[0]}', which this version of diffusion_jax "
            "does not know; install the version that wrote it"
        )
    return nested({**_defaults(known), **AS_IT_WAS, **values})


def deviations(config: Config) -> dict[str, Any]:
    """Return the values that differ from their key's default, as plain JSON, by dotted key.

    They identify a configuration, also after keys were added.
    """
    flat = flatten(to_json(config))
    defaults = _defaults(keys(names_of(flat)))
    return {name: value for name, value in flat.items() if value != defaults[name]}


def _defaults(known: dict[str, Key]) -> dict[str, Any]:
    return json.loads(json.dumps({name: key.default for name, key in known.items()}))


def differences(old: dict, new: dict) -> list[str]:
    """List the keys that differ but must not change on resuming, as 'key (old -> new)'."""
    old, new = flatten(old), flatten(new)
    # With `train.minutes`, the number of steps may not change either.
    fixed = {"train.steps"} if new.get("train.minutes") else set()
    if old.get("model.name") != new.get("model.name"):  # the keys of another network say nothing
        old, new = ({k: v for k, v in each.items() if not _of_network(k)} for each in (old, new))
    return [
        f"{key} ({old.get(key)} -> {new.get(key)})"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
        and (key in fixed or (key not in MAY_CHANGE and not key.endswith("_every")))
    ]


def _of_network(key: str) -> bool:
    return key.startswith("model.") and key != "model.name"


def as_it_was(old: dict, config: Config) -> dict[str, Any]:
    """Return what a run that is older than some keys keeps of them when it resumes, as a tree.

    Args:
        old: the run's config, translated by `modernised`.
        config: the present one, whose defaults for these keys mean something else.
    """
    before, now = flatten(old), flatten(to_json(config))
    usual = _defaults(keys(names_of(now)))
    kept = {
        key: value
        for key, value in AS_IT_WAS.items()
        if before.get(key) == value and now.get(key) == usual.get(key)
    }
    return nested(kept)
