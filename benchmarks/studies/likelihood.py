"""What does a likelihood report cost, and what do strata of t save? On a trained run.

python -m benchmarks.studies.likelihood --workdir runs/digits [--out benchmarks/results/likelihood.json]

1. A report (one t of every ten) against its bare network calls, interleaved; and what the report
   spends beside them, seen with a network that costs nothing.
2. The Monte-Carlo standard error of the mean bound of fixed images over repeated keys: uniform t,
   and strata of t with a quarter of the network calls.
"""

import argparse
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.harness import programs, records, timing
from benchmarks.speed import evaluate
from diffusion_jax import build, run_folder
from diffusion_jax.commands.restore import restore_ema
from diffusion_jax.core.bound import strata, stratum_terms, term_nats
from diffusion_jax.core.keys import fold, image_keys, image_normal, image_uniform
from diffusion_jax.core.process import q_sample
from diffusion_jax.devices import sharding
from diffusion_jax.devices.cores import each_core_a_device
from diffusion_jax.evaluation import likelihood

EVERY = 10  # steps a stratum, so that a report is short and many can be interleaved


def cost(run, diffusion: build.Diffusion, params, images, rounds: int) -> dict:
    """Seconds of a report of one batch and of as many bare network calls, medians of rounds."""
    terms = evaluate.count_terms(diffusion, EVERY)
    arguments = (params, images, EVERY)
    calls = {
        "network": evaluate.bare(diffusion, params, images, terms).call,
        "report": evaluate.report(run.config, diffusion, *arguments),
        "own": evaluate.report(run.config, programs.own_work(diffusion), *arguments),
    }
    taken = timing.in_turn(
        {name: partial(timing.timed, call) for name, call in calls.items()}, rounds
    )
    return {
        "images": len(images.index),
        "terms": terms,
        "seconds": {name: timing.median(taken, name) for name in calls},
        **timing.overheads(taken, "report"),
        "rounds": taken,
    }


def spread(run, diffusion: build.Diffusion, params, images, every: int, repeats: int) -> dict:
    """Standard errors over keys: strata of `every` steps, and uniform t with 4 times the calls."""
    x0 = likelihood.to_unit_range(images.levels, run.data.levels)
    denoise = diffusion.denoise(params, images.labels, run.config.sample.clip)
    reverse, levels, steps = diffusion.reverse, run.data.levels, diffusion.schedule.steps
    runs = strata(steps, every)
    calls = len(runs.start)

    @jax.jit
    def stratified(key):
        keys = image_keys(key, images.index)
        return stratum_terms(reverse, denoise, levels, keys, x0, runs).nats.sum(0).mean()

    @jax.jit
    def uniform(key):
        def term(_, n):
            keys = fold(image_keys(key, images.index), n)
            t = (image_uniform(fold(keys, 0)) * steps).astype(jnp.int32)
            eps = image_normal(fold(keys, 1), x0.shape[1:])
            denoised = denoise(q_sample(diffusion.schedule, x0, t, eps), t)
            return None, steps * term_nats(reverse, denoised, x0, eps, t, levels)

        return jax.lax.scan(term, None, jnp.arange(4 * calls))[1].mean()

    unit = np.prod(run.data.shape) * np.log(2.0)
    result: dict[str, Any] = {"images": len(images.index), "repeats": repeats}
    for name, estimate, count in (
        ("stratified", stratified, calls),
        ("uniform", uniform, 4 * calls),
    ):
        values = [float(estimate(jax.random.key(i))) / unit for i in range(repeats)]
        result[name] = {
            "network_calls_per_image": count,
            "mean_bits_per_dim": float(np.mean(values)),
            "stderr_bits_per_dim": float(np.std(values, ddof=1)),
        }
    return result


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--split", default="test")
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--every", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    each_core_a_device()
    run = run_folder.read(given.workdir)
    diffusion = build.diffusion(run.config, run.data)
    layout = sharding.shardings(jax.devices())
    params = jax.device_put(restore_ema(run, diffusion, None, layout).ema, layout.replicated)
    dataset = build.source(run.config, given.split).load()
    batches = partial(likelihood.batches, dataset, given.batch_size, given.batch_size, layout)
    _, images = next(iter(batches()))
    measured = cost(run, diffusion, params, images, given.repeats)
    saved = spread(run, diffusion, params, images, given.every, 24)
    records.save(given.out, {"config": run.config.name, "report": measured, "timesteps": saved})
    ratio = saved["stratified"]["stderr_bits_per_dim"] / saved["uniform"]["stderr_bits_per_dim"]
    print(
        f"{run.config.name}: report {100 * measured['overhead']:.1f}% over its network calls "
        f"(its own work {100 * measured['own_over_network']:.1f}%); "
        f"strata with a quarter of the calls have {ratio:.2f} times the standard error of uniform t"
    )


if __name__ == "__main__":
    main()
