"""Finished batches of an evaluation on disk, so that a stopped evaluation can resume."""

import hashlib
import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

import jax
import numpy as np

from diffusion_jax.evaluation.likelihood import ImageBatch, Measure
from diffusion_jax.files import replacing


def fingerprint(settings: dict[str, Any], *trees: Any) -> str:
    """Compute the SHA-256 of settings and of the arrays in `trees`, in order."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for leaf in jax.tree.leaves(trees):
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()


class FinishedBatches:
    """A folder with one file per batch; its name should include the evaluation's `fingerprint`."""

    def __init__(self, folder: Path):
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def load(self, name: str) -> dict[str, np.ndarray] | None:
        """Load the arrays saved under this name; None if there are none."""
        path = self._folder / f"{name}.npz"
        if not path.is_file():
            return None
        with np.load(path, allow_pickle=False) as content:
            return {key: content[key] for key in content}

    def save(self, name: str, arrays: dict[str, np.ndarray]) -> None:
        """Write the arrays of one batch atomically."""
        path = self._folder / f"{name}.npz"
        with replacing(path, "wb") as file:
            np.savez(file, **arrays)  # pyright: ignore[reportArgumentType]

    def remove(self) -> None:
        """Remove the folder, once the evaluation is done."""
        shutil.rmtree(self._folder)


class ProgressDisplay(Protocol):
    """Shows progress to the user."""

    def __call__(self, done: float) -> None:
        """Show that `done` images are done, a fraction of an image included."""
        ...

    def close(self) -> None:
        """End the display."""
        ...


def measure_in_batches(
    measure: Measure,
    params: Any,
    batches: Iterable[tuple[int, ImageBatch]],
    finished: FinishedBatches | None,
    progress: ProgressDisplay,
) -> dict[str, np.ndarray]:
    """Evaluate a measure over all images, loading batches that a stopped evaluation finished.

    Args:
        batches: pairs of the number of images that count and the batch.
        finished: None keeps nothing on disk.
    """
    first, collected = 0, []
    try:
        for count, images in batches:
            name = f"{measure.name}_{first:07d}"
            arrays = None if finished is None else finished.load(name)
            if arrays is None:

                def tell(part: float, first=first, count=count) -> None:
                    progress(first + part * count)

                whole = measure.run(params, images, tell)
                arrays = {key: each[..., :count] for key, each in whole.items()}
                if finished is not None:
                    finished.save(name, arrays)
            first += count
            progress(first)
            collected.append(arrays)
    finally:
        progress.close()
    return {key: np.concatenate([each[key] for each in collected], axis=-1) for key in collected[0]}
