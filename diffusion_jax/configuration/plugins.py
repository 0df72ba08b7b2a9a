"""Python files of users: configurations, and plug-ins that add entries to the tables."""

import hashlib
import importlib.util
import sys
import traceback
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from diffusion_jax.configuration.as_json import flatten
from diffusion_jax.configuration.tables import TABLES, defined_by_user, module_of, names_of
from diffusion_jax.errors import UserError
from diffusion_jax.paths import as_path


def execute(path: Path, kind: str) -> ModuleType:
    """Execute a Python file and return its module.

    Args:
        kind: what the file is, for the error.

    Raises:
        UserError: it is missing, or fails.
    """
    place = hashlib.sha256(str(path.absolute()).encode()).hexdigest()[:8]
    name = f"{kind}_{path.stem}_{place}"  # two files may have the same name
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
        raise UserError(f"{kind} {path} failed: {reason(error, path)}") from error
    return module


def reason(error: Exception, path: Path) -> str:
    """Return type and first line of an error, and the line of the file that it comes from."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == str(path)]
    where = f" (line {lines[-1]})" if lines else ""
    return f"{type(error).__name__}: {error}".splitlines()[0] + where


def load_plugins(paths: str | Path | Iterable[str | Path]) -> None:
    """Execute the users' files that add entries to the tables.

    Raises:
        UserError: one is missing, or fails.
    """
    for path in [paths] if isinstance(paths, str | Path) else paths:
        execute(as_path(path), "plugin")


def plugins_of(config: Any) -> dict[str, str]:
    """Return, by key, where the functions that a config names are defined, if not in this package.

    That is a file, or '' for a notebook or a script.
    """
    flat = flatten(config.to_dict())
    named = {key: TABLES[key][name] for key, name in names_of(flat).items()}
    return {key: _file(f) for key, f in named.items() if defined_by_user(f)}


def check_plugins(flat: Mapping[str, Any], plugins: Mapping[str, str], folder: Path) -> None:
    """Refuse a run whose config names functions that have not been defined.

    Args:
        flat: the run's config, by dotted key.
        plugins: the result of `plugins_of` when the run began.

    Raises:
        UserError: it names the file that is needed.
    """
    for key, file in plugins.items():
        if key not in TABLES or flat.get(key) in TABLES[key]:
            continue
        what = f"{folder} needs the function '{flat.get(key)}' of config.{key}"
        if file:
            raise UserError(f"{what}, defined in {file}; add --plugins={file}")
        raise UserError(
            f"{what}, defined in a notebook or script; define it again first, or put it into a "
            "file and add --plugins=FILE"
        )


def _file(function: Any) -> str:
    module = module_of(function)
    file = getattr(sys.modules.get(module), "__file__", None)
    return str(Path(file).absolute()) if file and module != "__main__" else ""
