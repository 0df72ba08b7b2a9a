"""Is it worth packing small parameters into one array? The training step with and without it.

python -m benchmarks.studies.packing --config digits [--rounds 5] [--steps 40] [--out x.json]

Each round compiles the step again, without the compilation cache, and then times it.
"""

import time
from contextlib import nullcontext
from typing import Any
from unittest import mock

import jax

from benchmarks.harness import comparison, programs, records
from benchmarks.harness.timing import in_turn, medians, ratio
from diffusion_jax.build import updates
from diffusion_jax.command_line import positive, run

KINDS = ("packed", "plain")


def compile_and_step(job: programs.Job, packed: bool, steps: int) -> dict[str, Any]:
    """Return seconds of compiling the step, and of one step, which starts compiled."""
    with nullcontext() if packed else _nothing_packed():
        jax.clear_caches()
        began, busy = time.perf_counter(), time.process_time()
        program = programs.train_step(job)
        made = time.perf_counter() - began, time.process_time() - busy
    jax.block_until_ready(program.call())
    began = time.perf_counter()
    for _ in range(steps):
        last = program.call()
    jax.block_until_ready(last)
    return {
        "seconds": (time.perf_counter() - began) / steps,
        "compile_seconds": made[0],
        "compile_cpu_seconds": made[1],
        "arrays": len(jax.tree.leaves(job.state.params)) if packed else _arrays(job),
    }


def _nothing_packed():
    kept = {"pack": lambda params: params, "unpack": lambda params, shapes: params}
    return mock.patch.multiple(updates, **kept)


def _arrays(job: programs.Job) -> int:
    return len(jax.tree.leaves(job.diffusion.shapes))


def main(arguments: list[str]) -> None:
    """Measure and report."""
    parser = comparison.parser("packing", __doc__, peers=False)
    parser.add_argument("--steps", type=positive, default=40, help="steps to time in each round")
    given, settings = comparison.parse_config(parser, arguments)
    jax.config.update("jax_enable_compilation_cache", False)
    job = programs.job(settings)
    rounds = in_turn(
        {
            kind: lambda kind=kind: compile_and_step(job, kind == "packed", given.steps)
            for kind in KINDS
        },
        given.rounds,
        warm=False,
    )
    keys = ("seconds", "compile_seconds", "compile_cpu_seconds")
    result = {
        "config": settings.name,
        "batch": job.size,
        "arrays": medians(rounds, "arrays"),
        **{key: medians(rounds, key) for key in keys},
        "packed_over_plain": {key: ratio(rounds, *KINDS, key) for key in keys},
        "rounds": rounds,
    }
    records.save(given.out, result)
    print({name: round(value, 3) for name, value in result["packed_over_plain"].items()})


if __name__ == "__main__":
    run(main)
