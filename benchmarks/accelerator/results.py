"""A stage's results: written after each item, so that a cut-off loses nothing."""

import json
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from benchmarks.harness import records
from diffusion_jax.errors import UserError
from diffusion_jax.files import replacing

Items = dict[str, Callable[[], dict[str, Any]]]


class Results:
    """One JSON file: a dictionary of items, where they were measured, and what went wrong.

    Args:
        path: the file.
        device: the devices, as `stage.probe` describes them.
        seconds: how long the stage may take.
    """

    def __init__(self, path: Path, device: dict[str, Any], seconds: float):
        self._path, self._device = path, device
        self._deadline = time.monotonic() + seconds
        self.items: dict[str, Any] = {}

    def left(self) -> float:
        """Return the seconds that are left."""
        return self._deadline - time.monotonic()

    def take(self, items: Items, always: bool = False) -> None:
        """Measure the items in their order, as long as there is time; a failed one is recorded.

        An item is begun if the time left is at least half of the longest that one took so far.

        Args:
            always: begin every item, whatever the time.
        """
        longest = 0.0
        for name, measure in items.items():
            if not always and self.left() < max(longest / 2.0, 1.0):
                self._keep(name, {"left_out": "no time was left"})
                continue
            began = time.monotonic()
            self._keep(name, _measured(measure))
            longest = max(longest, time.monotonic() - began)

    def _keep(self, name: str, item: dict[str, Any]) -> None:
        self.items[name] = item
        write(self._path, {"items": self.items}, self._device)
        print(f"{self._path.stem} {name}: {_shown(item)}", flush=True)


def _measured(measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    try:
        return measure()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            return _failed(error)
        return {"left_out": "the device has too little memory"}
    except (Exception, SystemExit) as error:  # whatever a library runs into: the next one goes on
        return _failed(error)


def _failed(error: BaseException) -> dict[str, Any]:
    last = traceback.format_exc().strip().splitlines()[-12:]
    return {"error": f"{type(error).__name__}: {error}"[:2000], "traceback": last}


def _shown(item: dict[str, Any]) -> str:
    """Return the item's numbers and texts in one line."""
    if "error" in item:
        return f"FAILED: {item['error'].strip().splitlines()[-1]}"
    plain = {key: value for key, value in item.items() if isinstance(value, int | float | str)}
    return ", ".join(
        f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}"
        for key, value in plain.items()
    )


def write(path: Path, content: dict[str, Any], device: dict[str, Any]) -> None:
    """Write a stage's file, whole or not at all, with hardware, versions and date."""
    with replacing(path) as file:
        file.write(json.dumps(records.described(content, device["kinds"]), indent=1) + "\n")


def read(path: Path) -> dict[str, Any]:
    """Read a stage's file; an empty dictionary if there is none.

    Raises:
        UserError: it is no such file.
    """
    try:
        content = json.loads(path.read_text())
        content["hardware"]["devices"]
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UserError(f"{path} holds no results; remove it or name another --out") from error
    return content


def check_device(out: Path, names: list[str], device: dict[str, Any]) -> None:
    """Refuse a folder with results of another device: the two would be taken for one.

    Raises:
        UserError: it names both.
    """
    for name in names:
        content = read(out / f"{name}.json")
        before = content["hardware"]["devices"] if content else device["kinds"]
        if before != device["kinds"]:
            raise UserError(
                f"--out {out} holds results of {_counted(before)}, this is "
                f"{_counted(device['kinds'])}; name another folder"
            )


def _counted(kinds: list[str]) -> str:
    return f"{len(kinds)} x {kinds[0]}"
