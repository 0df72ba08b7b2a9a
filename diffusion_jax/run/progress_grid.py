"""Grids of samples drawn during training."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from diffusion_jax import build
from diffusion_jax.devices import sharding
from diffusion_jax.models.packing import unpack_on_host
from diffusion_jax.samplers.generate import make_generate
from diffusion_jax.visual.images import grid, labelled_grid, save_png, to_uint8


class _Cut(Exception):
    """Raised to abandon a grid because the run is stopping."""


def make_draw(
    config, diffusion: build.Diffusion, folder: Path
) -> Callable[[int, Any, Callable[[], bool]], str | None]:
    """Return `(step, packed parameters, stopping) -> path`, which draws a grid of samples.

    It is compiled at its first call, and returns None if `stopping()` becomes true.
    """
    num, layout = config.sample.num, sharding.shardings(jax.local_devices())
    generate = make_generate(build.method(config, diffusion), layout, num)

    def draw(step: int, packed, stopping: Callable[[], bool]) -> str | None:
        def progress(done: float) -> None:
            if stopping():
                raise _Cut

        params = unpack_on_host(packed, diffusion.shapes)
        try:
            drawn = list(generate(params, config.seed, range(num), progress))
        except _Cut:
            return None
        path = folder / f"step_{step:07d}.png"
        images = to_uint8(np.concatenate([batch.images for batch in drawn]))
        labels = [batch.label for batch in drawn if batch.label is not None]
        names = diffusion.data.class_names
        shown = labelled_grid(images, np.concatenate(labels), names) if labels else grid(images)
        save_png(path, shown)
        return str(path)

    return draw
