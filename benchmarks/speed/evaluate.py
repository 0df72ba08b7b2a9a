"""Time the terms of the bound beside their bare network calls, and PyTorch's.

python -m benchmarks.speed.evaluate --config configs/digits.py --batch 64 --peer diffusers
    [--every 100] [--rounds N] [--peers PYTHON] [--out x.json]

Ours is the bound of one batch as `evaluate.py` computes it, with one term of every `--every` steps.
In turn with it run as many bare network calls, ours and the peer's, and the bound with a network
that costs nothing.
"""

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.harness import comparison, programs
from diffusion_jax.commands.arguments import positive, run
from diffusion_jax.core.bound import strata
from diffusion_jax.devices.cores import each_core_a_device
from diffusion_jax.evaluation import likelihood


def bare(job: programs.Job, params, images: likelihood.ImageBatch, terms: int) -> programs.Program:
    """Compile as many network calls as there are terms, and nothing else."""

    def calls(params, levels, label):
        x = levels.astype(jnp.float32) / job.data.levels
        with jax.default_matmul_precision("highest"):
            times = jnp.arange(float(terms))
            return programs.network_calls(job.diffusion, params, x, times, label)

    return programs.program(calls, params, images.levels, images.labels)


def bound(
    job: programs.Job, params, images: likelihood.ImageBatch, every: int
) -> Callable[[], Any]:
    """Return the bound of one batch, as `evaluate.py` computes it."""
    diffusion = job.diffusion

    def denoise(params, label):
        return diffusion.denoise(params, label, job.settings.sample.clip)

    measured = likelihood.bound(diffusion.reverse, denoise, job.data.levels, every, 0)
    return partial(measured.run, params, images, lambda part: None)


def main(arguments: list[str]) -> None:
    """Measure and report."""
    parser = comparison.parser("evaluate", __doc__)
    parser.add_argument("--every", type=positive, default=100, help="steps that a term stands for")
    parser.set_defaults(batch=64)
    each_core_a_device()
    given, job = comparison.parse(parser, arguments)
    terms = len(strata(job.diffusion.schedule.steps, given.every).start)
    with ExitStack() as stack:
        peers = comparison.start_peers(given, job, stack)
        params, *batch = job.placed(*job.batch)
        images = likelihood.ImageBatch(*batch)
        network = bare(job, params, images, terms)
        free = bound(programs.own_work(job), params, images, given.every)
        others = {"network": network.call, "own": free}
        # The floor is that of the network calls.
        program = network._replace(call=bound(job, params, images, given.every))
        result = comparison.compare(job, program, peers, ("forward", terms), given, others)
    result["terms"] = terms
    line = comparison.throughput(result, terms * job.size, "terms/s")
    comparison.report("evaluate", given, job, comparison.abouts(peers), result, line)


if __name__ == "__main__":
    run(main)
