"""What a run's config.json says, checked when it is read."""

import json
from pathlib import Path
from typing import NamedTuple

from diffusion_jax import configuration
from diffusion_jax.configuration import Config
from diffusion_jax.configuration.plugins import check_plugins
from diffusion_jax.data.dataset import DataSpec
from diffusion_jax.errors import UserError

FORMAT = 1  # of config.json; 0 had no number


class Record(NamedTuple):
    """What config.json says of a run: all but its parameters."""

    folder: Path
    config: Config
    data: DataSpec

    @property
    def checkpoints(self) -> Path:
        """The folder of the run's checkpoints."""
        return self.folder / "checkpoints"


def paced_steps(folder: Path) -> int:
    """Return the number of steps that `train.minutes` set when the run began.

    Raises:
        UserError: config.json is damaged or lacks the number.
    """
    path = folder / "config.json"
    steps = read_json(path).get("paced_steps")
    if steps is None:
        raise _damaged(path, "paced_steps is missing")
    return steps


def read(folder: Path) -> Record:
    """Read config.json of a run.

    Raises:
        UserError: the folder holds no run, or its config.json is damaged.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise UserError(
            f"no run in {folder}: config.json is missing; give the folder of a trained run"
        )
    record = read_json(path)
    try:
        config = configuration.from_json(record["config"])
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise _damaged(path, f"its config has invalid keys ({error})") from error
    return Record(folder, config, spec_of(record))


def spec_of(record: dict) -> DataSpec:
    """Return what a record says of the data."""
    data = record["data"]
    names = tuple(data.get("class_names", ()))
    return DataSpec(tuple(data["shape"]), data["levels"], data["classes"], names)


def _is_spec(data: dict) -> bool:
    numbers = [*data["shape"], data["levels"], data["classes"]]
    names = data.get("class_names", [])
    return (
        all(type(each) is int for each in numbers)
        and len(data["shape"]) == 3
        and min(data["shape"]) >= 1
        and 2 <= data["levels"] <= 256
        and data["classes"] >= 0
        and all(isinstance(name, str) for name in names)
        and len(names) in (0, data["classes"])
    )


def read_json(path: Path) -> dict:
    """Read and check config.json, translated from older versions.

    Raises:
        UserError: it is damaged, or of a newer version.
    """
    try:
        record = json.loads(path.read_text())
        json.dumps(record, allow_nan=False)  # refuses NaN and infinity, which Python reads
        plugins = record.get("plugins", {})
        whole = isinstance(record["config"], dict) and isinstance(record["sessions"], list)
        texts = [record.get("init", ""), record.get("fingerprint", ""), *plugins.values()]
        whole = whole and all(isinstance(text, str) for text in texts)
        paced = record.get("paced_steps")
        counted = paced is None or (type(paced) is int and paced > 0)
        if type(form := record.get("format", 0)) is int and form > FORMAT:
            raise UserError(
                f"{path} has format {form}, but this version of diffusion_jax knows only formats "
                f"up to {FORMAT}; install a newer version"
            )
        if whole and counted and _is_spec(record["data"]):
            check_plugins(configuration.flatten(record["config"]), plugins, path.parent)
            return {**record, "config": configuration.modernised(record["config"])}
        reason = "some values are invalid"
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
    raise _damaged(path, reason)


def _damaged(path: Path, reason: str) -> UserError:
    return UserError(f"{path} is damaged: {reason}; restore it or choose another --workdir")
