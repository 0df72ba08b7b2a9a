"""How fast are images drawn, and what does drawing cost beside the network? Ancestral sampling.

python -m benchmarks.speed.sample --config configs/digits.py --batch 64 --peer diffusers
    [--steps 1000] [--short 20] [--rounds N] [--awake] [--peers PYTHON] [--out x.json]

1. Whole chains, ours in one scan and the peer's loop of network calls in turn.
2. Short chains in one scan against their bare network calls and against a loop of jitted single
   steps, in turn; and what a chain spends beside the network, seen with one that costs nothing.
3. The memory of the compiled scan: it must not grow with the steps.

The parameters are freshly drawn: what they are does not change how long a call takes.
"""

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.harness import comparison, peer_client, programs, timing
from diffusion_jax.commands.arguments import positive, run
from diffusion_jax.core.keys import Stream, fold, image_keys, image_normal, stream_key
from diffusion_jax.core.moves import descent
from diffusion_jax.core.predictions import Denoise
from diffusion_jax.core.schedules import Schedule
from diffusion_jax.devices.compiler import compiler_options
from diffusion_jax.devices.cores import each_core_a_device
from diffusion_jax.samplers.base import Plan
from diffusion_jax.samplers.grids import make_grid
from diffusion_jax.samplers.sample import SAMPLERS, prior_sample, rounded, sample, start


class Chain(NamedTuple):
    """What is sampled: parameters, one key and perhaps one class per image, and how."""

    job: programs.Job
    params: Any
    keys: jax.Array
    label: jax.Array | None

    @property
    def sampler(self):
        """Ancestral sampling with the config's variance."""
        return SAMPLERS["ancestral"](variance=self.job.settings.variance)

    def grid(self, steps: int) -> Schedule:
        """Evenly spaced training steps."""
        return make_grid("uniform", self.job.diffusion.schedule, steps)

    def plan(self, steps: int) -> Plan:
        """The rows of a chain."""
        grid = self.grid(steps)
        return self.sampler.plan(grid, descent(grid))

    def denoise(self, params, label, levels: Schedule) -> Denoise:
        """The network's, clipped as the config says."""
        return self.job.diffusion.denoise(params, label, self.job.settings.sample.clip, levels)

    def program(self, draw: Callable) -> programs.Program:
        """`draw(params, keys, label)` compiled for this chain's."""
        return programs.program(draw, self.params, self.keys, self.label)


def make_chain(job: programs.Job) -> Chain:
    """As many images as the batch has, on all devices."""
    index, classes = jnp.arange(job.settings.train.batch_size), job.settings.model.classes
    keys = image_keys(stream_key(0, Stream.SAMPLE), index)
    return Chain(job, *job.placed(keys, index % classes if classes else None))


def in_one_scan(chain: Chain, steps: int) -> programs.Program:
    """The chain as one program."""

    def draw(params, keys, label):
        denoise_on = partial(chain.denoise, params, label)
        return sample(chain.sampler, denoise_on, keys, chain.job.data.shape, chain.grid(steps))

    return chain.program(draw)


def bare(chain: Chain, steps: int) -> programs.Program:
    """As many network calls and nothing else, compiled the same way."""

    def call(params, keys, label):
        x = image_normal(keys, chain.job.data.shape)
        times = jnp.asarray(chain.grid(steps).time[::-1], jnp.float32)
        return programs.network_calls(chain.job.diffusion, params, x, times, label)

    return chain.program(call)


def in_a_loop(chain: Chain, steps: int) -> Callable[[], jax.Array]:
    """The same chain with one dispatch a step, from Python."""
    sampler, plan = chain.sampler, chain.plan(steps)
    rows = [jax.tree.map(lambda a, i=i: a[i], rounded(plan.rows)) for i in range(steps)]

    @jax.jit
    def begin(keys):
        return start(sampler, prior_sample(chain.grid(steps), keys, chain.job.data.shape))

    @partial(jax.jit, compiler_options=compiler_options())
    def step(params, keys, label, state, row):
        denoise = chain.denoise(params, label, plan.points)
        return sampler.step(denoise, fold(keys, row.index + 1), state.x, row, state.carry)

    def draw():
        state = begin(chain.keys)
        for row in rows:
            state = step(chain.params, chain.keys, chain.label, state, row)
        return state.x

    return draw


def overhead(chain: Chain, steps: int, rounds: int) -> dict[str, Any]:
    """Short chains: medians over the rounds, and of ratios in each round."""
    free = chain._replace(job=chain.job._replace(diffusion=programs.own_work(chain.job.diffusion)))
    calls = {
        "network": bare(chain, steps).call,
        "scan": in_one_scan(chain, steps).call,
        "loop": in_a_loop(chain, steps),
        "own": in_one_scan(free, steps).call,
    }
    difference = jnp.abs(calls["scan"]() - calls["loop"]()).max()
    taken = timing.in_turn(
        {name: partial(timing.timed, call) for name, call in calls.items()}, rounds
    )
    return {
        "steps": steps,
        "seconds": {name: timing.median(taken, name) for name in calls},
        **timing.overheads(taken, "scan"),
        "loop_over_scan": timing.ratio(taken, "loop", "scan"),
        "loop_largest_difference": float(difference),
        "rounds": taken,
    }


def memory(program: programs.Program, chain: Chain, steps: int) -> dict[str, int]:
    """Bytes of a compiled chain; the tables' grow with its steps."""
    used, rows = program.compiled.memory_analysis(), rounded(chain.plan(steps).rows)
    return {
        "steps": steps,
        "temporary": used.temp_size_in_bytes,
        "arguments": used.argument_size_in_bytes,
        "output": used.output_size_in_bytes,
        "rows": sum(np.asarray(leaf).nbytes for leaf in jax.tree.leaves(rows)),
    }


def fastest(peers: list[peer_client.Peer], images: int) -> list[peer_client.Peer]:
    """The one whose second chain of three steps takes least: whole chains of all would be long."""
    if not peers:
        return []
    asked = [[each.ask("sample", images, 3)["seconds"] for _ in range(2)] for each in peers]
    return [peers[int(np.argmin([last for _, last in asked]))]]


def main(arguments: list[str]) -> None:
    """Measure and report."""
    parser = comparison.parser("sample", __doc__ or "")
    comparison.add_awake(parser)
    parser.add_argument("--steps", type=positive, default=1000, help="of a whole chain")
    parser.add_argument("--short", type=positive, default=20, help="steps of the short chains")
    parser.set_defaults(batch=64, rounds=3)
    each_core_a_device()
    given, job = comparison.parse(parser, arguments)
    with ExitStack() as stack:
        peers = fastest(comparison.start_peers(given, job, stack), given.batch)
        chain = make_chain(job)
        whole = in_one_scan(chain, given.steps)
        command = ("sample", given.batch, given.steps)
        result = comparison.compare(job, whole, peers, command, given, warm=False)
    short = overhead(chain, given.short, given.rounds)
    sizes = [
        memory(in_one_scan(chain, given.short), chain, given.short),
        memory(whole, chain, given.steps),
    ]
    result |= {"steps": given.steps, "short": short, "bytes": sizes}
    line = comparison.throughput(result, given.batch, "img/s")
    first, last = (each["temporary"] / 2**20 for each in sizes)
    said = (
        f"sampling {short['overhead']:+.1%} over its network calls, its own work "
        f"{short['own_over_network']:.2%}; a loop of steps takes {short['loop_over_scan']:.2f} "
        f"times the scan; temporary memory {first:.2f} MiB at {given.short} steps, {last:.2f} MiB "
        f"at {given.steps}"
    )
    comparison.report("sample", given, job, comparison.abouts(peers), result, line, said)


if __name__ == "__main__":
    run(main)
