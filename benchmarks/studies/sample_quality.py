"""Measure the Fréchet distance of a run's samples to its training images, by method and calls.

python -m benchmarks.studies.sample_quality --workdir runs/digits [--methods ddim dpmpp_2m]
    [--calls 10 20 50] [--images 256] [--seeds 6] [--out x.json]

Seed by seed, all methods start from the same noises; the grid is even in log-SNR.
"""

from typing import Any

import jax
import numpy as np

from benchmarks.harness import records
from benchmarks.studies.solvers import steps_for
from diffusion_jax import build, build_sampling, run_folder
from diffusion_jax.commands.arguments import as_path, positive, run
from diffusion_jax.commands.restore import restore_ema
from diffusion_jax.data.transforms import to_levels
from diffusion_jax.devices import sharding
from diffusion_jax.evaluation import frechet
from diffusion_jax.samplers.generate import Method, make_generate
from diffusion_jax.samplers.sample import SAMPLERS


def make_method(trained: run_folder.Run, diffusion: build.Diffusion, name: str, calls: int):
    """Return the run's sampling method with another sampler, at about `calls` network calls."""
    settings = trained.config.copy_and_resolve_references()
    settings.sample.update({"sampler": name, "grid": "log_snr", "eta": 0.0, "langevin_steps": 1})

    def method(steps: int) -> Method:
        settings.sample.steps = steps
        return build_sampling.method(settings, diffusion)

    return method(steps_for(lambda steps: method(steps).plan, calls))


def spread(distances: list[float]) -> dict[str, float]:
    """Return mean and standard error over the seeds."""
    stderr = np.std(distances, ddof=1) / len(distances) ** 0.5
    return {"frechet": float(np.mean(distances)), "frechet_stderr": float(stderr)}


def measure(trained: run_folder.Run, given) -> dict[str, Any]:
    """Return the distance of every method by calls, and that of as many real test images."""
    diffusion, layout = (
        build.diffusion(trained.config, trained.data),
        sharding.shardings(jax.devices()),
    )
    params = restore_ema(trained, diffusion, None, layout).ema
    train, test = (build.source(trained.config, split).load() for split in ("train", "test"))
    network = frechet.learn(train, test)
    reference = frechet.mean_and_cov(frechet.features(network, train.images))

    def distance(levels) -> float:
        found = frechet.mean_and_cov(frechet.features(network, np.asarray(levels)))
        return frechet.distance(found, reference)

    def of_seeds(method: Method) -> list[float]:
        generate = make_generate(method, layout, given.images)
        found = []
        for seed in range(given.seeds):
            batches = generate(params, seed, range(given.images), lambda part: None)
            images = np.concatenate([batch.images for batch in batches])
            found.append(distance(to_levels(images, trained.data.levels)))
        return found

    rng, rows = np.random.default_rng(0), []
    real = [distance(rng.permutation(test.images)[: given.images]) for _ in range(given.seeds)]
    for name, calls in ((name, calls) for name in given.methods for calls in given.calls):
        method = make_method(trained, diffusion, name, calls)
        row = {"method": name, "steps": method.steps, "calls": len(method.plan.rows.index)}
        rows.append({**row, **spread(of_seeds(method))})
        print(rows[-1], flush=True)
    return {"classifier_accuracy": network.accuracy, "real": spread(real), "rows": rows}


def main(arguments: list[str]) -> None:
    """Measure and report."""
    parser = records.parser("studies.sample_quality", __doc__)
    parser.add_argument("--workdir", type=as_path, required=True, help="a trained run")
    parser.add_argument("--methods", nargs="+", default=list(SAMPLERS), choices=SAMPLERS)
    parser.add_argument("--calls", type=positive, nargs="+", default=[10, 20, 50, 200])
    parser.add_argument("--images", type=positive, default=256, help="of every seed")
    parser.add_argument("--seeds", type=positive, default=6, help="at least 2")
    given = parser.parse_args(arguments)
    trained = run_folder.read(given.workdir)
    about = {"config": trained.config.name, "images": given.images, "seeds": given.seeds}
    records.save(given.out, {**about, **measure(trained, given)})


if __name__ == "__main__":
    run(main)
