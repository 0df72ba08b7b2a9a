"""Finished batches of an evaluation on disk, so that a stopped one goes on where it was."""

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
    """SHA-256 of settings and of the arrays in any trees, in their order."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for leaf in jax.tree.leaves(trees):
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()


class FinishedBatches:
    """A folder with one file a batch; its name should hold the `fingerprint` of what it is of."""

    def __init__(self, folder: Path):
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def load(self, name: str) -> dict[str, np.ndarray] | None:
        """The arrays saved under this name, None if there are none."""
        path = self._folder / f"{name}.npz"
        if not path.is_file():
            return None
        with np.load(path, allow_pickle=False) as content:
            return {key: content[key] for key in content}

    def save(self, name: str, arrays: dict[str, np.ndarray]) -> None:
        """Write the arrays of one batch, whole or not at all."""
        path = self._folder / f"{name}.npz"
        with replacing(path, "wb") as file:
            np.savez(file, **arrays)  # pyright: ignore[reportArgumentType]

    def remove(self) -> None:
        """The evaluation is done: its result is elsewhere."""
        shutil.rmtree(self._folder)


class ProgressDisplay(Protocol):
    """Where a person sees how far it is."""

    def __call__(self, done: float) -> None:
        """Show that `done` images, whole and in fractions, are done."""
        ...

    def close(self) -> None:
        """There is nothing more to say."""
        ...


def measure_in_batches(
    measure: Measure,
    params: Any,
    batches: Iterable[tuple[int, ImageBatch]],
    finished: FinishedBatches,
    progress: ProgressDisplay,
) -> dict[str, np.ndarray]:
    """One measure over all images; batches that a stopped evaluation finished are read back.

    Args:
        batches: how many images of each batch count, and the batch.
    """
    first, collected = 0, []
    try:
        for count, images in batches:
            name = f"{measure.name}_{first:07d}"
            arrays = finished.load(name)
            if arrays is None:

                def tell(part: float, first=first, count=count) -> None:
                    progress(first + part * count)

                whole = measure.run(params, images, tell)
                arrays = {key: each[..., :count] for key, each in whole.items()}
                finished.save(name, arrays)
            first += count
            progress(first)
            collected.append(arrays)
    finally:
        progress.close()
    return {key: np.concatenate([each[key] for each in collected], axis=-1) for key in collected[0]}
