"""Where images go: a grid, an .npz file, or a folder that grows batch by batch."""

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from diffusion_jax.command_line import check_file
from diffusion_jax.configuration import default_config, to_json
from diffusion_jax.configuration.as_json import AS_IT_WAS, nested
from diffusion_jax.data.folder_listing import EXTENSIONS
from diffusion_jax.errors import UserError
from diffusion_jax.files import replacing
from diffusion_jax.paths import as_path
from diffusion_jax.visual.images import grid, labelled_grid, save_png

Index = Sequence[int] | np.ndarray


class Whole:
    """One file, written at the end: a PNG grid, or an .npz.

    The .npz has uint8 images [n, h, w, c] under `arr_0` and, if they have classes, labels int32 [n]
    under `arr_1`.

    Args:
        class_names: shown beside the rows of a grid.
    """

    def __init__(self, path: Path, class_names: Sequence[str] = ()):
        check_file(path)
        self.path, self._names = path, class_names
        self._images: list[np.ndarray] = []
        self._labels: list[np.ndarray] = []

    def missing(self, num: int) -> list[int]:
        """Return all indices below `num`."""
        return list(range(num))

    def add(self, index: Index, images: np.ndarray, labels: np.ndarray | None) -> None:
        """Keep uint8 images `[n, h, w, c]`."""
        self._images.append(images)
        if labels is not None:
            self._labels.append(labels)

    def finish(self) -> None:
        """Write the file atomically."""
        images = np.concatenate(self._images)
        labels = np.concatenate(self._labels) if self._labels else None
        if self.path.suffix.lower() == ".npz":
            with replacing(self.path, "wb") as file:
                np.savez(file, *(each for each in (images, labels) if each is not None))
        elif labels is None:
            save_png(self.path, grid(images))
        else:
            save_png(self.path, labelled_grid(images, labels, self._names))


class Folder:
    """A folder of PNGs, written batch by batch; a stopped command continues where it stopped.

    `samples.json` records which run or data set, and which settings, the images are from.
    """

    def __init__(self, path: Path, identity: dict[str, Any]):
        self.path, self._note, self._identity = path, path / "samples.json", identity
        check_file(path / _name(0))
        if self._note.exists():
            _check_same(path, self._note, identity)
        elif others := self.others(0):
            raise UserError(f"--out {path}: holds other pictures ({others[0]}); use another folder")

    def others(self, num: int) -> list[str]:
        """Return the names of the pictures in the folder, except those of images 0 .. `num` - 1."""
        own = {_name(i) for i in range(num)}
        names = sorted(path.name for path in self.path.iterdir())
        return [name for name in names if name.lower().endswith(EXTENSIONS) and name not in own]

    def missing(self, num: int) -> list[int]:
        """Return the indices below `num` whose images have not been written."""
        return [i for i in range(num) if not (self.path / _name(i)).exists()]

    def add(self, index: Index, images: np.ndarray, labels: np.ndarray | None) -> None:
        """Write uint8 images `[n, h, w, c]`, each one atomically."""
        if not self._note.exists():
            with replacing(self._note) as file:
                file.write(json.dumps(self._identity, indent=2, sort_keys=True) + "\n")
        paths = [self.path / _name(i) for i in index]
        with ThreadPoolExecutor() as pool:
            list(pool.map(save_png, paths, images))  # raises what a thread raises

    def finish(self) -> None:
        """Do nothing: all images have been written."""


def open_output(
    out: str, identity: dict[str, Any], class_names: Sequence[str] = ()
) -> Whole | Folder:
    """Open the output that `--out` names, and check it before anything is computed.

    A new folder whose name has an extension must be given with a `/` at the end.

    Raises:
        UserError: it cannot be written, or is a folder of other images.
    """
    path = as_path(out)
    suffix, folder = path.suffix.lower(), path.is_dir() or out.endswith("/")
    if suffix in (".png", ".npz") and not folder:
        return Whole(path, class_names)
    if suffix and not folder:
        raise UserError(
            f"--out {out}: expected a name ending in .png or .npz; for a folder of this name, give "
            f"--out={out}/"
        )
    return Folder(path, identity)


def _check_same(path: Path, note: Path, identity: dict[str, Any]) -> None:
    try:
        # Settings that the folder does not know had the effect that `_when_unknown` gives.
        old = {**_when_unknown(), **json.loads(note.read_text())}
        changed = sorted(k for k in identity if old.get(k) != identity[k])
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(f"{note} is damaged; choose another folder than --out {path}") from error
    if changed:
        raise UserError(
            f"--out {path}: holds images of another source or with other settings "
            f"({', '.join(changed)} differ); choose another folder"
        )


def _when_unknown() -> dict[str, Any]:
    """Return what settings of sampling meant before they were keys, else their defaults."""
    return {**to_json(default_config())["sample"], **nested(AS_IT_WAS)["sample"]}


def _name(i: int) -> str:
    return f"{i:06d}.png"
