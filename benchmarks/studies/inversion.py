"""How near does DDIM come back to an image after encoding it to noise? On a trained run.

python -m benchmarks.studies.inversion --workdir runs/digits [--out benchmarks/results/inversion.json]

Training images are encoded and decoded without clipping on grids even in log-SNR; the root mean
square error is in parts of the data's range, which is 2.
"""

import argparse
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.harness import records
from diffusion_jax import build, run_folder
from diffusion_jax.commands.restore import restore_ema
from diffusion_jax.core.schedules import Schedule
from diffusion_jax.data.transforms import to_unit_range
from diffusion_jax.devices import sharding
from diffusion_jax.samplers import inversion
from diffusion_jax.samplers.grids import make_grid

RANGE = 2.0


def round_trip(diffusion: build.Diffusion, params, label, x0: jax.Array, grid: Schedule) -> dict:
    """Errors of the images that come back, and how normal their noises are."""

    @jax.jit
    def there_and_back(params, x0):
        def denoise_on(levels: Schedule):
            return diffusion.denoise(params, label, clip=False, grid=levels)

        noise = inversion.encode(denoise_on, grid, x0)
        return noise, inversion.decode(denoise_on, grid, noise)

    noise, back = (np.asarray(each) for each in there_and_back(params, x0))
    error = np.sqrt(np.mean(np.square(back - np.asarray(x0)), axis=(1, 2, 3))) / RANGE
    return {
        "steps": grid.steps,
        "mean_rmse": float(error.mean()),
        "largest_rmse": float(error.max()),
        "noise_std": float(noise.std()),
    }


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--steps", type=int, nargs="+", default=[25, 50, 100, 200, 400])
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    run = run_folder.read(given.workdir)
    diffusion = build.diffusion(run.config, run.data)
    layout = sharding.shardings(jax.devices())
    params = restore_ema(run, diffusion, None, layout).ema
    dataset = build.source(run.config).load()
    x0 = to_unit_range(jnp.asarray(dataset.images[: given.images]), run.data.levels)
    label = jnp.asarray(dataset.labels[: given.images]) if run.config.model.classes else None
    grids = [make_grid("log_snr", diffusion.schedule, steps) for steps in given.steps]
    rows = [round_trip(diffusion, params, label, x0, grid) for grid in grids]
    records.save(given.out, {"config": run.config.name, "images": len(x0), "round_trips": rows})
    found = ", ".join(f"{100 * row['mean_rmse']:.2f}% in {row['steps']} steps" for row in rows)
    print(f"{run.config.name}: there and back, mean error in diffusion of the range: {found}")


if __name__ == "__main__":
    main()
