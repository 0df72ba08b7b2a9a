"""Time the compilation of the training step, cold and from the cache, each in a new process.

python -m benchmarks.speed.compile --config configs/cifar10.py --batch 16 [--rounds N]
    [--out x.json] [--config.key=value ...]

Every round has a new, empty cache; imports, the state and the step itself are not counted.
"""

import json
import tempfile

import jax

from benchmarks.harness import comparison, programs, timing
from diffusion_jax.command_line import run

CACHE = "JAX_COMPILATION_CACHE_DIR"
KEEP_ALL = "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"


def once(job: programs.Job) -> dict[str, float]:
    """Return the seconds of each phase in this process; each knows what the last one did."""
    batch, parallel = job.batch, programs.spread(job)
    shapes = parallel.shapes(batch)
    phases = {
        "trace": lambda: jax.eval_shape(parallel.step, *shapes),
        "lower": lambda: parallel.step.lower(*shapes),
        "compile": lambda: parallel.compile(batch),
    }
    seconds = {name: timing.timed(phase)["seconds"] for name, phase in phases.items()}
    return {**seconds, "seconds": sum(seconds.values())}


def one_round(arguments: list[str]) -> dict[str, dict[str, float]]:
    """Compile in two new processes that share a cache."""
    with tempfile.TemporaryDirectory() as cache:
        environment = {CACHE: cache, KEEP_ALL: "0.2"}
        names = ("ours", "ours_warm")
        return {name: comparison.in_process("compile", arguments, environment) for name in names}


def main(arguments: list[str]) -> None:
    """Measure and report."""
    parser = comparison.parser("compile", __doc__, peers=False, once=True)
    given, job = comparison.parse(parser, arguments)
    if given.once:
        return print(json.dumps(once(job)))
    rounds = [one_round(arguments) for _ in range(given.rounds)]
    seconds = timing.medians(rounds)
    result = {"seconds": seconds, "rounds": rounds}
    line = f"cold {seconds['ours']:.1f} s, from the cache {seconds['ours_warm']:.1f} s"
    comparison.report("compile", given, job, {}, result, line)


if __name__ == "__main__":
    run(main)
