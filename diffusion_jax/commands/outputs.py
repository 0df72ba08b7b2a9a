"""Where samples go: a grid, an .npz file, or a folder that grows batch by batch."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from diffusion_jax.command_line import check_file
from diffusion_jax.configuration import default_config, to_json
from diffusion_jax.errors import UserError
from diffusion_jax.files import replacing
from diffusion_jax.paths import as_path
from diffusion_jax.samplers.generate import Generated
from diffusion_jax.visual.images import grid, labelled_grid, save_png, to_uint8

PICTURES = (".jpg", ".jpeg", ".gif", ".webp", ".bmp", ".npy")


class Whole:
    """One file, written at the end: a PNG grid, or an .npz with uint8 images under `arr_0`."""

    def __init__(self, path: Path):
        check_file(path)
        self.path = path
        self._images: list[np.ndarray] = []
        self._labels: list[np.ndarray] = []

    def missing(self, num: int) -> list[int]:
        """Return all indices below `num`."""
        return list(range(num))

    def add(self, batch: Generated) -> None:
        """Keep the images of a batch."""
        self._images.append(to_uint8(batch.images))
        if batch.label is not None:
            self._labels.append(batch.label)

    def finish(self) -> None:
        """Write the file atomically."""
        images = np.concatenate(self._images)
        if self.path.suffix.lower() == ".png":
            labels = np.concatenate(self._labels) if self._labels else None
            save_png(self.path, grid(images) if labels is None else labelled_grid(images, labels))
            return
        with replacing(self.path, "wb") as file:
            np.savez(file, arr_0=images)


class Folder:
    """A folder of PNGs, written batch by batch; a stopped command continues where it stopped.

    `samples.json` records which run and settings the images are from.
    """

    def __init__(self, path: Path, identity: dict[str, Any]):
        self.path, self._note, self._identity = path, path / "samples.json", identity
        check_file(path / _name(0))
        if self._note.exists():
            _check_same(path, self._note, identity)
        elif others := sorted(path.glob("*.png")):
            raise UserError(
                f"--out {path}: holds other pictures ({others[0].name}); use another folder"
            )

    def missing(self, num: int) -> list[int]:
        """Return the indices below `num` whose images have not been written."""
        return [i for i in range(num) if not (self.path / _name(i)).exists()]

    def add(self, batch: Generated) -> None:
        """Write the images of a batch, each one atomically."""
        if not self._note.exists():
            with replacing(self._note) as file:
                file.write(json.dumps(self._identity, indent=2, sort_keys=True) + "\n")
        for i, image in zip(batch.index, to_uint8(batch.images), strict=True):
            save_png(self.path / _name(i), image)

    def finish(self) -> None:
        """Do nothing: all images have been written."""


def open_output(out: str, identity: dict[str, Any]) -> Whole | Folder:
    """Open the output that `--out` names, and check it before anything is computed.

    Raises:
        UserError: it cannot be written, or is a folder of other images.
    """
    path = as_path(out)
    suffix, folder = path.suffix.lower(), path.is_dir() or out.endswith("/")
    if suffix in (".png", ".npz") and not folder:
        return Whole(path)
    if suffix in PICTURES and not folder:
        raise UserError(f"--out {out}: expected a name ending in .png or .npz, or a folder")
    return Folder(path, identity)


def _check_same(path: Path, note: Path, identity: dict[str, Any]) -> None:
    try:
        # Settings that the folder does not know had the effect of their defaults.
        old = {**_defaults(), **json.loads(note.read_text())}
        changed = sorted(k for k in identity if old.get(k) != identity[k])
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(f"{note} is damaged; choose another folder than --out {path}") from error
    if changed:
        raise UserError(
            f"--out {path}: holds samples of another run or other settings "
            f"({', '.join(changed)} differ); choose another folder"
        )


def _defaults() -> dict[str, Any]:
    return to_json(default_config())["sample"]


def _name(i: int) -> str:
    return f"{i:06d}.png"
