"""A run's folder: locked by one process, and reserved for the run that began in it."""

import fcntl
import json
import os
import socket
import subprocess
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import IO

from diffusion_jax import __version__, configuration
from diffusion_jax.checkpoints import step_folders
from diffusion_jax.configuration import Config
from diffusion_jax.configuration.plugins import plugins_of
from diffusion_jax.data.dataset import DataSpec, Source
from diffusion_jax.errors import UserError, counted
from diffusion_jax.files import replacing
from diffusion_jax.run.record import FORMAT, read_json, spec_of

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "ml-collections", "numpy")


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


def check_same(folder: Path, config: Config, source: Source) -> list[str]:
    """Check that an existing run in `folder` has this configuration and these images.

    Returns:
        Lines for the user, about changed images that `data.changed` allows.

    Raises:
        UserError: it differs.
    """
    path = folder / "config.json"
    if not path.exists():
        return []
    record = read_json(path)
    changed = configuration.differences(record["config"], configuration.to_json(config))
    old = spec_of(record)
    names = (
        ("shape", "levels", "classes") if config.model.get("classes", 0) else ("shape", "levels")
    )
    changed += [
        f"the data's {name} ({getattr(old, name)} -> {getattr(source.spec, name)})"
        for name in names
        if getattr(old, name) != getattr(source.spec, name)
    ]
    if changed:
        raise UserError(
            f"{folder} holds a run with another config: {', '.join(changed)}; on resuming, only "
            "keys that do not affect updates may change (docs/configuration.md lists them); choose "
            f"another --workdir; to start there from this run's weights, add --init={folder}"
        )
    other = _other_images(record, old, source)
    if other and config.data.changed != "allow":
        raise UserError(
            f"{folder} was trained on other images ({other}); to go on with the new ones, add "
            "--config.data.changed=allow; to begin a new run with these weights, choose another "
            f"--workdir and add --init={folder}"
        )
    return (
        [f"the images have changed ({other}); they come in a new order from here on"]
        if other
        else []
    )


def _other_images(record: dict, old: DataSpec, source: Source) -> str:
    """Return how the images differ from those of a run's record, '' if they do not."""
    before = record.get("images", source.size)
    if before != source.size:
        return f"{before:,} -> {counted(source.size, 'image')}"
    if old.class_names and old.class_names != source.class_names:
        return f"classes {', '.join(old.class_names)} -> {', '.join(source.class_names)}"
    same = record.get("fingerprint") in (None, source.fingerprint)
    return "" if same else f"still {before:,}, but with other names or contents"


def resumed(folder: Path, config: Config) -> Config:
    """Return the configuration with which a run in `folder` begins, or goes on if it exists.

    Keys that are newer than the run keep the values that mean what it did, and a warm-up that was
    cut when the run began stays as long as it was.
    """
    path = folder / "config.json"
    if not path.exists() or not step_folders.complete(folder / "checkpoints"):
        return configuration.with_shorter_warmup(config)
    record = read_json(path)
    kept = configuration.as_it_was(record["config"], config)
    if record.get("warmup_given") == config.optimizer.warmup_steps:
        kept["optimizer"] = {
            **kept.get("optimizer", {}),
            "warmup_steps": record["config"]["optimizer"]["warmup_steps"],
        }
    return configuration.changed(config, kept)


def begin(
    folder: Path,
    config: Config,
    source: Source,
    step: int,
    paced_steps: int | None = None,
    init: str = "",
    warmup_given: int | None = None,
) -> None:
    """Write config.json, and add this session, which starts after `step` updates, to its list.

    Args:
        paced_steps: the number of steps that `train.minutes` was found to allow.
        init: the checkpoint whose weights a new run begins with.
        warmup_given: the warm-up that the configuration asked for, before it was cut.

    Raises:
        UserError: the folder cannot be written.
    """
    path = folder / "config.json"
    session = {
        "from_step": step,
        "versions": versions(),
        "git_revision": _git_revision(),
    }
    before = read_json(path) if step and path.exists() else {"sessions": []}
    once = configuration.changed(config, {"data": {"changed": "refuse"}})  # not the next time
    record = {
        "format": FORMAT,
        "config": configuration.to_json(once),
        "data": source.spec._asdict(),
        "images": source.size,
        "fingerprint": source.fingerprint,
        "init": before.get("init", init),
        "warmup_given": before.get("warmup_given", warmup_given),
        "paced_steps": paced_steps,
        "plugins": plugins_of(config),
        "sessions": [*before["sessions"], session],
    }
    try:
        (folder / "samples").mkdir(parents=True, exist_ok=True)
        with replacing(path, durable=True) as file:
            file.write(json.dumps(record, indent=2, allow_nan=False) + "\n")
    except OSError as error:
        raise UserError(f"cannot write the workdir {folder}: {error.strerror}") from error


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
