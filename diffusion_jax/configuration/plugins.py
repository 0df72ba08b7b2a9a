"""Python files of users: configurations, and plug-ins that add entries to the tables."""

import importlib.util
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from diffusion_jax.configuration.tables import TABLES
from diffusion_jax.errors import UserError


def execute(path: Path, kind: str) -> ModuleType:
    """Execute a Python file and return its module.

    Args:
        kind: what the file is, for the error.

    Raises:
        UserError: it is missing, or fails.
    """
    name = f"diffusion_jax_{kind}_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise UserError(f"no {kind} file {path}; give the path of a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where Python looks up the annotations of its classes
    try:
        spec.loader.exec_module(module)
    except UserError as error:
        raise UserError(f"{kind} {path}: {error}") from error
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise UserError(f"{kind} {path} failed: {reason}") from error
    return module


def load_plugins(paths: str | Path | Iterable[str | Path]) -> None:
    """Execute the users' files that add entries to the tables.

    Raises:
        UserError: one is missing, or fails.
    """
    for path in [paths] if isinstance(paths, str | Path) else paths:
        execute(Path(path), "plugin")


def plugins_of(config: Any) -> dict[str, str]:
    """Return, by key, the files outside the package that define the functions a config names."""
    named = {key: TABLES[key][_name(config, key)] for key in TABLES}
    files = {key: _file(function) for key, function in named.items()}
    return {key: file for key, file in files.items() if file}


def check_plugins(flat: Mapping[str, Any], plugins: Mapping[str, str], folder: Path) -> None:
    """Refuse a run whose config names functions that no loaded file defines.

    Args:
        flat: the run's config, by dotted key.
        plugins: the result of `plugins_of` when the run began.

    Raises:
        UserError: it names the file that is needed.
    """
    for key, file in plugins.items():
        if key in TABLES and flat.get(key) not in TABLES[key]:
            raise UserError(
                f"{folder} needs the file that defines config.{key} '{flat.get(key)}', which was "
                f"{file}; add --plugins={file}"
            )


def _name(config: Any, key: str) -> str:
    group, _, leaf = key.rpartition(".")
    return (config[group] if group else config)[leaf]


def _file(function: Any) -> str:
    module = getattr(function, "__module__", "") or ""
    if module.split(".")[0] == "diffusion_jax":
        return ""
    return str(getattr(sys.modules.get(module), "__file__", None) or "")
