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


class Judge:
    """Fréchet distances to a run's training images, over the features of one small classifier."""

    def __init__(self, trained: dj.Run, images: int, seeds: int):
        """Learn the classifier; the distances are of `images` samples from each of `seeds`."""
        train, self._test = (dj.load_data(trained.config, split) for split in ("train", "test"))
        self._network = frechet.learn(train, self._test)
        self._reference = frechet.mean_and_cov(frechet.features(self._network, train.images))
        self._images, self._seeds = images, seeds

    def _distance(self, levels) -> float:
        found = frechet.mean_and_cov(frechet.features(self._network, np.asarray(levels)))
        return frechet.distance(found, self._reference)

    def of(self, run: dj.Run) -> dict[str, Any]:
        """Return a configured run's network calls and distance."""
        draw, found = run.drawing(self._images), []
        for seed in range(self._seeds):
            batches = draw.generate(run.params, seed, range(self._images), lambda part: None)
            images = np.concatenate([batch.images for batch in batches])
            found.append(self._distance(to_levels(images, run.data.levels)))
        plan = draw.method.plan
        return {"steps": draw.method.steps, "calls": len(plan.rows.index), **spread(found)}

    def about(self) -> dict[str, Any]:
        """Return the classifier's accuracy, and the distance of as many real test images."""
        rng = np.random.default_rng(0)
        drawn = (rng.permutation(self._test.images)[: self._images] for _ in range(self._seeds))
        real = [self._distance(each) for each in drawn]
        return {"classifier_accuracy": self._network.accuracy, "real": spread(real)}


def measure(trained: dj.Run, given) -> dict[str, Any]:
    """Return the distance of every method by calls, and that of as many real test images."""
    judge, rows = Judge(trained, given.images, given.seeds), []
    for name, calls in ((name, calls) for name in given.methods for calls in given.calls):
        rows.append({"method": name, **judge.of(with_sampler(trained, name, calls))})
        print(rows[-1], flush=True)
    return {**judge.about(), "rows": rows}


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
