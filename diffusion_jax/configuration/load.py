"""Load configurations: the defaults, shipped ones by name, users' files by path."""

import inspect
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from diffusion_jax.configuration.as_json import Config, flatten, nested
from diffusion_jax.configuration.change import (
    changed,
    held,
    names_first,
    nearest,
    override,
    with_arguments,
)
from diffusion_jax.configuration.check import check
from diffusion_jax.configuration.keys import keys
from diffusion_jax.configuration.plugins import execute, reason
from diffusion_jax.configuration.tables import names_of
from diffusion_jax.errors import UserError, unknown_name
from diffusion_jax.paths import as_path

# A wheel holds the repository's folder of configurations inside the package.
CONFIGS = next(
    folder
    for folder in (Path(__file__).parents[1] / "configs", Path(__file__).parents[2] / "configs")
    if folder.is_dir()
)


def default_config() -> Config:
    """Return every key with its default, locked against unknown ones."""
    return ConfigDict(nested({name: held(key) for name, key in keys().items()})).lock()


def load(spec: str, overrides: Iterable[tuple[str, str]] = ()) -> Config:
    """Load the configuration `NAME[:variant]` or `FILE[:variant]`, with its overrides, and lock it.

    Args:
        spec: name of a shipped configuration, or path of a Python file; it defines `get_config()`,
            or `get_config(variant)`.
        overrides: `(dotted key, text of the value)`.

    Raises:
        UserError: the file is missing or broken, a key is unknown, a value has the wrong type.
    """
    name, _, variant = str(as_path(spec)).partition(":")
    path = _path(name)
    config = with_arguments(_get_config(path, variant))
    _check_keys(config, path)
    given = dict(overrides)
    for key in names_first(given):
        override(config, key, given[key])
    return config.lock()


def config(spec: str | Config, **changes: Any) -> Config:
    """Return a configuration with some values changed.

    `config("digits:conditional", seed=1, model={"channels": 16})`: keys of the top level by name,
    those of a group as a dict. docs/configuration.md lists all.

    Args:
        spec: name of a shipped configuration, or path of a Python file, each with `:variant` if
            wanted; or a configuration.
        changes: the values to change.

    Raises:
        UserError: there is no such configuration, a key is unknown, or a value is wrong.
    """
    new = changed(load(spec) if isinstance(spec, str) else spec, changes)
    check(new)
    return new


def with_variant(config: Config, variants: Mapping[str, Mapping[str, Any]], name: str) -> Config:
    """Apply one of a file's variants and add it to the run's name; '' changes nothing.

    Raises:
        UserError: there is no such variant.
    """
    if not name:
        return config
    if name not in variants:
        raise unknown_name("variant", name, variants)
    return changed(config, {**variants[name], "name": f"{config.name}_{name}"})


def shipped() -> dict[str, Path]:
    """Return the files of the configurations that come with the package, by name."""
    return {path.stem: path for path in sorted(CONFIGS.glob("[a-z]*.py"))}


def _path(name: str) -> Path:
    path = Path(name)
    if path.is_file():
        return path
    if name in shipped():
        return shipped()[name]
    raise UserError(
        f"no config '{name}'; give the path of a Python file, or one of: {', '.join(shipped())}"
    )


def _get_config(path: Path, variant: str) -> Config:
    module = execute(path, "config")
    if not hasattr(module, "get_config"):
        raise UserError(f"config {path} defines no function get_config()")
    if variant and not inspect.signature(module.get_config).parameters:
        raise UserError(f"config {path} has no variants; leave ':{variant}' out")
    try:
        config = module.get_config(variant) if variant else module.get_config()
    except UserError:
        raise
    except Exception as error:
        named = f"{path}{':' * bool(variant)}{variant}"
        raise UserError(f"config {named} failed: {reason(error, path)}") from error
    if not isinstance(config, ConfigDict):
        raise UserError(f"config {path}: get_config() must return a ConfigDict")
    return config


def _check_keys(config: Config, path: Path) -> None:
    own = flatten(config.to_dict())
    known = keys(names_of(own))
    for key in own.keys() - known.keys():
        raise UserError(
            f"config {path} has an unknown key '{key}'; nearest: '{nearest(key, known)}'"
        )
    for key in known.keys() - own.keys():
        raise UserError(f"config {path} lacks the key '{key}'; start from the config 'default'")
