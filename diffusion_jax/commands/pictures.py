"""The pictures of a likelihood report: three curves and a strip of predictions."""

from pathlib import Path
from typing import Any

import jax
import numpy as np

from diffusion_jax.data.transforms import to_unit_range
from diffusion_jax.devices.sharding import Shardings
from diffusion_jax.evaluation.likelihood import ImageBatch, progressive
from diffusion_jax.run.progress import warn
from diffusion_jax.run.run import Run
from diffusion_jax.visual.images import save_strips

STRIP_ROWS, STRIP_COLUMNS = 8, 10


def strips(run: Run, seed: int, layout: Shardings, count: int, images: ImageBatch) -> np.ndarray:
    """Predict x0 from less and less noise, for the first of a batch's `count` images.

    Returns:
        `[n, columns, h, w, c]`; the last column is the image itself.
    """
    diffusion, clip = run.diffusion, run.config.sample.clip
    steps = np.linspace(diffusion.schedule.steps - 1, 0, STRIP_COLUMNS).astype(int).tolist()
    levels = diffusion.data.levels
    predict = progressive(
        diffusion.schedule, lambda p, label: diffusion.denoise(p, label, clip), levels, seed, steps
    )
    params = jax.device_put(run.params, layout.replicated)
    rows = np.moveaxis(np.asarray(predict(params, images).x0), 0, 1)
    own = np.asarray(to_unit_range(images.levels, levels))[:, None]
    return np.concatenate([rows, own], axis=1)[: min(count, STRIP_ROWS)]


def write_pictures(out: Path, report: dict[str, Any], rows: np.ndarray) -> None:
    """Write the report's PNGs beside it.

    Args:
        out: the report's path.
        rows: images `[n, columns, h, w, c]` in [-1, 1], one strip of predictions per row.
    """
    save_strips(_beside(out, "progressive"), rows)
    try:
        from diffusion_jax.visual import curves
    except ModuleNotFoundError as error:
        warn(f"no curves drawn: package '{error.name}' is missing; pip install matplotlib")
        return
    table = report["per_timestep"]
    t, bits, steps, rate, distortion = (
        [row[key] for row in table] for key in ("t", "bits_per_dim", "steps", "rate", "distortion")
    )
    prior = report["bits_per_dim"]["prior"]["mean"]
    sums = [each * count for each, count in zip(bits, steps, strict=True)]
    curves.bits_per_t(_beside(out, "bits_per_t"), t, bits)
    curves.cumulative(_beside(out, "cumulative"), t, sums, prior)
    curves.rate_distortion(_beside(out, "rate_distortion"), rate, distortion)


def _beside(out: Path, what: str) -> Path:
    return out.with_name(f"{out.stem}_{what}.png")
