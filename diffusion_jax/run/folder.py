"""A run's folder: config.json, metrics.jsonl, tensorboard/, samples/, checkpoints/."""

import fcntl
import json
import os
import socket
import subprocess
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import IO, NamedTuple

from diffusion_jax import __version__, configuration
from diffusion_jax.checkpoints import step_folders
from diffusion_jax.configuration import Config
from diffusion_jax.configuration.plugins import check_plugins, plugins_of
from diffusion_jax.data.dataset import DataSpec
from diffusion_jax.errors import UserError
from diffusion_jax.files import replacing

FORMAT = 1  # of config.json; 0 had no number
PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "ml-collections", "numpy")


class Record(NamedTuple):
    """What config.json says of a run: all but its parameters."""

    folder: Path
    config: Config
    data: DataSpec

    @property
    def checkpoints(self) -> Path:
        """The folder of the run's checkpoints."""
        return self.folder / "checkpoints"


def check_writable(folder: Path) -> None:
    """Check, before anything expensive, that `folder` can be written or created.

    Raises:
        UserError: it cannot.
    """
    place = next(path for path in (folder, *folder.absolute().parents) if os.path.lexists(path))
    if not place.is_dir() or not os.access(place, os.W_OK):
        raise UserError(f"cannot write the workdir {folder}: {place} is not a writable folder")


def lock(folder: Path) -> IO[str]:
    """Lock the folder for this process until the returned file is closed or the process ends.

    Raises:
        UserError: another process trains there, or the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / ".lock").open("a+")
    except OSError as error:
        raise UserError(f"cannot write the workdir {folder}: {error.strerror}") from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        owner = file.read().strip() or "unknown"
        file.close()
        raise UserError(
            f"{folder} is being trained by another process ({owner}); "
            "wait for it or choose another --workdir"
        ) from None
    except OSError:
        return file  # a file system without locks: users must not train twice at once
    try:
        os.ftruncate(file.fileno(), 0)
        os.write(file.fileno(), f"{os.getpid()} on {socket.gethostname()}".encode())
    except OSError as error:
        file.close()
        raise UserError(f"cannot write the workdir {folder}: {error.strerror}") from error
    return file


def check_same(folder: Path, config: Config, data: DataSpec, images: int) -> None:
    """Check that an existing run in `folder` has this configuration and data.

    Raises:
        UserError: it differs.
    """
    path = folder / "config.json"
    if not path.exists():
        return
    record = _read(path)
    changed = configuration.differences(record["config"], configuration.to_json(config))
    old = _spec(record)
    changed += [
        f"the data's {name} ({before} -> {after})"
        for name, before, after in zip(DataSpec._fields, old, data, strict=True)
        if before != after
    ]
    if (before := record.get("images", images)) != images:
        changed.append(f"the data's number of images ({before} -> {images})")
    if changed:
        raise UserError(
            f"{folder} holds a run with another config: {', '.join(changed)}; "
            "choose another --workdir"
        )


def resumed(folder: Path, config: Config) -> Config:
    """Return the configuration with which an existing run in `folder` goes on.

    Keys that are newer than the run keep the values that mean what it did.
    """
    path = folder / "config.json"
    if not path.exists() or not step_folders.complete(folder / "checkpoints"):
        return config
    return configuration.changed(config, configuration.as_it_was(_read(path)["config"], config))


def begin(
    folder: Path,
    config: Config,
    data: DataSpec,
    images: int,
    step: int,
    paced_steps: int | None = None,
) -> None:
    """Write config.json, and add this session, which starts after `step` updates, to its list.

    Args:
        paced_steps: the number of steps that `train.minutes` was found to allow.

    Raises:
        UserError: the folder cannot be written.
    """
    path = folder / "config.json"
    session = {
        "from_step": step,
        "versions": versions(),
        "git_revision": _git_revision(),
    }
    record = {
        "format": FORMAT,
        "config": configuration.to_json(config),
        "data": data._asdict(),
        "images": images,
        "paced_steps": paced_steps,
        "plugins": plugins_of(config),
        "sessions": [*(_read(path)["sessions"] if step and path.exists() else []), session],
    }
    try:
        (folder / "samples").mkdir(parents=True, exist_ok=True)
        with replacing(path, durable=True) as file:
            file.write(json.dumps(record, indent=2, allow_nan=False) + "\n")
    except OSError as error:
        raise UserError(f"cannot write the workdir {folder}: {error.strerror}") from error


def paced_steps(folder: Path) -> int:
    """Return the number of steps that `train.minutes` set when the run began.

    Raises:
        UserError: config.json is damaged or lacks the number.
    """
    path = folder / "config.json"
    steps = _read(path).get("paced_steps")
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
    record = _read(path)
    try:
        config = configuration.from_json(record["config"])
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise _damaged(path, f"its config has invalid keys ({error})") from error
    return Record(folder, config, _spec(record))


def _spec(record: dict) -> DataSpec:
    data = record["data"]
    return DataSpec(tuple(data["shape"]), data["levels"], data["classes"])


def _is_spec(data: dict) -> bool:
    numbers = [*data["shape"], data["levels"], data["classes"]]
    return (
        all(type(each) is int for each in numbers)
        and len(data["shape"]) == 3
        and min(data["shape"]) >= 1
        and 2 <= data["levels"] <= 256
        and data["classes"] >= 0
    )


def _read(path: Path) -> dict:
    try:
        record = json.loads(path.read_text())
        json.dumps(record, allow_nan=False)  # refuses NaN and infinity, which Python reads
        plugins = record.get("plugins", {})
        whole = isinstance(record["config"], dict) and isinstance(record["sessions"], list)
        whole = whole and all(isinstance(file, str) for file in plugins.values())
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


def versions() -> dict[str, str | None]:
    """Return the versions of the packages that results depend on, None for one that is missing."""
    found: dict[str, str | None] = {"diffusion_jax": __version__, **dict.fromkeys(PACKAGES)}
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def _git_revision() -> str | None:
    """Return the revision of the checkout that the package is in, None if it is installed."""
    command = ["git", "rev-parse", "--show-toplevel", "HEAD"]
    checkout = Path(__file__).resolve().parents[2]
    try:
        done = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    top, revision = done.stdout.splitlines()
    return revision if Path(top).resolve() == checkout else None
