"""Measure the Fréchet distance of a run's samples to its training images, by method and calls.

python -m benchmarks.studies.sample_quality --workdir runs/digits [--methods ddim dpmpp_2m]
    [--calls 10 20 50] [--images 256] [--seeds 6] [--out x.json]

Seed by seed, all methods start from the same noises; the grid is even in log-SNR.
"""

from typing import Any

import numpy as np

import diffusion_jax as dj
from benchmarks.harness import records
from benchmarks.studies.solvers import steps_for
from diffusion_jax import build
from diffusion_jax.command_line import as_path, positive, run
from diffusion_jax.data.transforms import to_levels
from diffusion_jax.evaluation import frechet


def with_sampler(trained: dj.Run, name: str, calls: int) -> dj.Run:
    """Return the run with another sampler, at about `calls` network calls."""
    settings = {"sampler": name, "grid": "log_snr", "eta": 0.0, "langevin_steps": 1}

    def run(steps: int) -> dj.Run:
        return trained.configured(sample={**settings, "steps": steps})

    def plan(steps: int):
        return build.method(run(steps).config, trained.diffusion).plan

    return run(steps_for(plan, calls))


def spread(distances: list[float]) -> dict[str, float]:
    """Return mean and standard error over the seeds."""
    stderr = np.std(distances, ddof=1) / len(distances) ** 0.5
    return {"frechet": float(np.mean(distances)), "frechet_stderr": float(stderr)}


def measure(trained: dj.Run, given) -> dict[str, Any]:
    """Return the distance of every method by calls, and that of as many real test images."""
    train, test = (dj.load_data(trained.config, split) for split in ("train", "test"))
    network = frechet.learn(train, test)
    reference = frechet.mean_and_cov(frechet.features(network, train.images))

    def distance(levels) -> float:
        found = frechet.mean_and_cov(frechet.features(network, np.asarray(levels)))
        return frechet.distance(found, reference)

    def of_seeds(draw) -> list[float]:
        found = []
        for seed in range(given.seeds):
            batches = draw.generate(trained.params, seed, range(given.images), lambda part: None)
            images = np.concatenate([batch.images for batch in batches])
            found.append(distance(to_levels(images, trained.data.levels)))
        return found

    rng, rows = np.random.default_rng(0), []
    real = [distance(rng.permutation(test.images)[: given.images]) for _ in range(given.seeds)]
    for name, calls in ((name, calls) for name in given.methods for calls in given.calls):
        draw = with_sampler(trained, name, calls).drawing(given.images)
        plan = draw.method.plan
        row = {"method": name, "steps": draw.method.steps, "calls": len(plan.rows.index)}
        rows.append({**row, **spread(of_seeds(draw))})
        print(rows[-1], flush=True)
    return {"classifier_accuracy": network.accuracy, "real": spread(real), "rows": rows}


def main(arguments: list[str]) -> None:
    """Measure and report."""
    parser = records.parser("studies.sample_quality", __doc__)
    parser.add_argument("--workdir", type=as_path, required=True, help="a trained run")
    parser.add_argument("--methods", nargs="+", default=list(dj.SAMPLERS), choices=dj.SAMPLERS)
    parser.add_argument("--calls", type=positive, nargs="+", default=[10, 20, 50, 200])
    parser.add_argument("--images", type=positive, default=256, help="of every seed")
    parser.add_argument("--seeds", type=positive, default=6, help="at least 2")
    given = parser.parse_args(arguments)
    trained = dj.load(given.workdir)
    about = {"config": trained.config.name, "images": given.images, "seeds": given.seeds}
    records.save(given.out, {**about, **measure(trained, given)})


if __name__ == "__main__":
    run(main)
