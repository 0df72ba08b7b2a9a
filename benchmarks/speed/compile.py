"""How long until the training step is compiled? Cold and from the cache, each in a new process.

python -m benchmarks.speed.compile --config configs/cifar10.py --batch 16 --peer diffusers
    [--rounds N] [--peers PYTHON] [--out x.json]

Ours: tracing, lowering, compiling. The peer: its first training step less its second, under
torch.compile. Every round has new, empty caches; imports, states and the step are not counted.
"""

import tempfile
import time
from functools import partial
from typing import Any

import jax

from benchmarks.harness import comparison, peer_client, programs, timing
from diffusion_jax.commands.arguments import run
from diffusion_jax.errors import UserError

CACHE = "JAX_COMPILATION_CACHE_DIR"
KEEP_ALL = "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"


def once(job: programs.Job) -> dict[str, float]:
    """Seconds of each phase in this process."""
    batch, parallel = job.batch, programs.spread(job)
    shapes = parallel.shapes(batch)
    phases = {
        "trace": lambda: jax.eval_shape(parallel.step, *shapes),
        "lower": lambda: parallel.step.lower(*shapes),  # which knows what was traced
        "compile": lambda: parallel.compile(batch),  # and what was lowered
    }
    seconds = {}
    for name, phase in phases.items():
        began = time.perf_counter()
        phase()
        seconds[name] = time.perf_counter() - began
    return {**seconds, "seconds": sum(seconds.values())}


def ours_in_process(arguments: list[str], cache: str) -> dict[str, Any]:
    """`once` in a new process that keeps what it compiles in `cache`."""
    return comparison.in_process("compile", arguments, **{CACHE: cache, KEEP_ALL: "0.2"})


def peer_in_process(
    given, job: programs.Job, abouts: dict[str, Any], name: str, cache: str
) -> dict[str, float]:
    """The first step's seconds less the second's, of a new process; `abouts` learns what it is."""
    settings = peer_client.settings(job.settings, job.data)
    with peer_client.started(given.peers, name, settings, TORCHINDUCTOR_CACHE_DIR=cache) as asked:
        first, second = (asked.ask("train")["seconds"] for _ in range(2))
        abouts[name] = asked.about
    return {"first": first, "second": second, "seconds": first - second}


def main(arguments: list[str]) -> None:
    """Measure and report."""
    parser = comparison.parser("compile", __doc__ or "")
    comparison.add_once(parser)
    given, job = comparison.parse(parser, arguments)
    if given.once:
        return comparison.answer(once(job))
    names = [name for name in peer_client.CHOICES[given.peer] if name.endswith("_compiled")]
    if given.peer != "none" and not names:
        raise UserError(f"--peer={given.peer} compiles nothing; take --peer=diffusers")
    abouts, taken = {}, []
    for _ in range(given.rounds):
        with tempfile.TemporaryDirectory() as our_cache, tempfile.TemporaryDirectory() as theirs:
            calls = {"ours": partial(ours_in_process, arguments, our_cache)}
            for name in names:
                calls[name] = partial(peer_in_process, given, job, abouts, name, theirs)
            cold, warm = timing.in_turn(calls, 2, warm=False)
        taken.append({**cold, **{f"{name}_warm": each for name, each in warm.items()}})
    seconds = {name: timing.median(taken, name) for name in taken[0]}
    result = {"seconds": seconds, **comparison.against(names, taken), "rounds": taken}
    line = comparison.amounts(seconds, result, "s")
    said = [f"{name}: from the cache {seconds[f'{name}_warm']:.1f} s" for name in calls]
    comparison.report("compile", given, job, abouts, result, line, *said)


if __name__ == "__main__":
    run(main)
