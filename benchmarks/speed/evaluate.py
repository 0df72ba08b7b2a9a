"""How fast are the terms of the bound, and what do they cost beside their network calls?

python -m benchmarks.speed.evaluate --config configs/digits.py --batch 64 --peer diffusers
    [--every 100] [--rounds N] [--awake] [--peers PYTHON] [--out x.json]

Ours: the bound of one batch as `evaluate.py` computes it, one term of every `--every` steps.
Beside it as many bare network calls, ours and the peer's, and a network that costs nothing.
"""

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.harness import comparison, programs, timing
from diffusion_jax import build
from diffusion_jax.commands.arguments import positive, run
from diffusion_jax.config import Config
from diffusion_jax.core.bound import strata
from diffusion_jax.devices.cores import each_core_a_device
from diffusion_jax.evaluation import likelihood


def count_terms(diffusion: build.Diffusion, every: int) -> int:
    """Terms of the bound, and network calls, of an image."""
    return len(strata(diffusion.schedule.steps, every).start)


def bare(
    diffusion: build.Diffusion, params, images: likelihood.ImageBatch, terms: int
) -> programs.Program:
    """As many network calls as there are terms, and nothing else."""

    def calls(params, levels, label):
        x = levels.astype(jnp.float32) / diffusion.data.levels
        with jax.default_matmul_precision("highest"):
            return programs.network_calls(diffusion, params, x, jnp.arange(float(terms)), label)

    return programs.program(calls, params, images.levels, images.labels)


def report(
    settings: Config, diffusion: build.Diffusion, params, images: likelihood.ImageBatch, every: int
) -> Callable[[], Any]:
    """The bound of one batch, as `evaluate.py` computes it."""

    def denoise(params, label):
        return diffusion.denoise(params, label, settings.sample.clip)

    measured = likelihood.bound(diffusion.reverse, denoise, diffusion.data.levels, every, 0)
    return partial(measured.run, params, images, lambda part: None)


def main(arguments: list[str]) -> None:
    """Measure and report."""
    parser = comparison.parser("evaluate", __doc__ or "")
    comparison.add_awake(parser)
    parser.add_argument("--every", type=positive, default=100, help="steps a term stands for")
    parser.set_defaults(batch=64)
    each_core_a_device()
    given, job = comparison.parse(parser, arguments)
    diffusion, terms = job.diffusion, count_terms(job.diffusion, given.every)
    with ExitStack() as stack:
        peers = comparison.start_peers(given, job, stack)
        params, *batch = job.placed(*job.batch)
        images = likelihood.ImageBatch(*batch)
        network = bare(diffusion, params, images, terms)
        bound = report(job.settings, diffusion, params, images, given.every)
        others = {
            "network": network.call,
            "own": report(job.settings, programs.own_work(diffusion), params, images, given.every),
        }
        program = network._replace(call=bound)  # whose floor is that of its network calls
        result = comparison.compare(job, program, peers, ("forward", terms), given, others)
    result |= {"terms": terms, **timing.overheads(result["rounds"], "ours")}
    line = comparison.throughput(result, terms * given.batch, "terms/s")
    said = (
        f"the bound {result['overhead']:+.1%} over its network calls, its own work "
        f"{result['own_over_network']:.2%}; images x terms a call: {given.batch} x {terms}"
    )
    comparison.report("evaluate", given, job, comparison.abouts(peers), result, line, said)


if __name__ == "__main__":
    run(main)
