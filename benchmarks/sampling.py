"""What does drawing images cost beside the network? Ancestral sampling of a trained run.

python -m benchmarks.sampling --workdir runs/digits [--peers PYTHON]
    [--out benchmarks/results/sampling.json]

1. Chains in one scan against their bare network calls and against a loop of jitted single steps,
   interleaved; and what a chain spends beside the network, seen with one that costs nothing.
2. A whole chain once, and the memory of the compiled scan: it must not grow with the steps.
3. With `--peers`, an interpreter that has torch and diffusers: its pipeline, with a network of the
   same size, in turn with ours.
"""

import argparse
import json
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import record
from diffusion_jax import build, run_folder
from diffusion_jax.commands.restore import restore_ema
from diffusion_jax.core.keys import Stream, fold, image_keys, image_normal, stream_key
from diffusion_jax.core.moves import descent
from diffusion_jax.core.predictions import Denoise
from diffusion_jax.core.schedules import Schedule
from diffusion_jax.models.network import parameter_count
from diffusion_jax.samplers.grids import make_grid
from diffusion_jax.samplers.sample import SAMPLERS, prior_sample, rounded, sample, start
from diffusion_jax.training import devices

PEER_ROUNDS = 3


class Chain(NamedTuple):
    """What is sampled: parameters, one key and perhaps one class per image."""

    run: run_folder.Run
    parts: build.Diffusion
    params: Any
    keys: jax.Array
    label: jax.Array | None

    @property
    def sampler(self):
        """Ancestral sampling with the run's variance."""
        return SAMPLERS["ancestral"](variance=self.run.config.variance)

    def grid(self, steps: int) -> Schedule:
        """Evenly spaced training steps."""
        return make_grid("uniform", self.parts.schedule, steps)

    def denoise(self, params, label, levels: Schedule) -> Denoise:
        """The network's, clipped as the run says."""
        return self.parts.denoise(params, label, self.run.config.sample.clip, levels)


def in_one_scan(chain: Chain, steps: int):
    """The chain as one program `(params, keys, label) -> images`, compiled."""

    def draw(params, keys, label):
        denoise_on = partial(chain.denoise, params, label)
        return sample(chain.sampler, denoise_on, keys, chain.parts.data.shape, chain.grid(steps))

    return jax.jit(draw).lower(chain.params, chain.keys, chain.label).compile()


def bare(chain: Chain, steps: int):
    """As many network calls and nothing else, compiled the same way."""
    shape = chain.parts.data.shape

    def call(params, keys, label):
        def one(x, time):
            times = jnp.full(len(x), time)
            return chain.parts.network(params, x, times, label, None)[..., : shape[-1]], None

        times = jnp.asarray(chain.grid(steps).time[::-1], jnp.float32)
        return jax.lax.scan(one, image_normal(keys, shape), times)[0]

    return jax.jit(call).lower(chain.params, chain.keys, chain.label).compile()


def in_a_loop(chain: Chain, steps: int) -> Callable:
    """The same chain with one dispatch a step, from Python."""
    sampler, grid, shape = chain.sampler, chain.grid(steps), chain.parts.data.shape
    plan = sampler.plan(grid, descent(grid))
    rows = [jax.tree.map(lambda a, i=i: a[i], rounded(plan.rows)) for i in range(steps)]

    @jax.jit
    def begin(keys):
        return start(sampler, prior_sample(grid, keys, shape))

    @jax.jit
    def step(params, keys, label, state, row):
        denoise = chain.denoise(params, label, plan.points)
        return sampler.step(denoise, fold(keys, row.index + 1), state.x, row, state.carry)

    def draw(params, keys, label):
        state = begin(keys)
        for row in rows:
            state = step(params, keys, label, state, row)
        return state.x

    return draw


def seconds(function: Callable, chain: Chain) -> float:
    """Of one call, its result waited for."""
    began = time.perf_counter()
    jax.block_until_ready(function(chain.params, chain.keys, chain.label))
    return time.perf_counter() - began


def cost(chain: Chain, steps: int, repeats: int) -> dict:
    """Medians over interleaved rounds of all four, and of their ratios in each round."""
    free = chain.parts._replace(network=lambda params, x, time, label, keys: 0.5 * x)
    calls = {
        "network": bare(chain, steps),
        "scan": in_one_scan(chain, steps),
        "loop": in_a_loop(chain, steps),
        "own": in_one_scan(chain._replace(parts=free), steps),
    }
    images = [calls[name](chain.params, chain.keys, chain.label) for name in ("scan", "loop")]
    for call in calls.values():
        seconds(call, chain)
    rounds = np.array([[seconds(call, chain) for call in calls.values()] for _ in range(repeats)])
    network, scan, loop, own = rounds.T
    return {
        "images": len(chain.keys),
        "steps": steps,
        "seconds": dict(zip(calls, np.median(rounds, axis=0).tolist(), strict=True)),
        "overhead": float(np.median(scan / network) - 1.0),
        "own_over_network": float(np.median(own) / np.median(network)),
        "loop_over_scan": float(np.median(loop / scan)),
        "loop_largest_difference": float(jnp.abs(images[0] - images[1]).max()),
        "rounds": rounds.tolist(),
    }


def memory(compiled, chain: Chain, steps: int) -> dict:
    """Bytes of a compiled chain; the tables' grow with its steps."""
    grid = chain.grid(steps)
    plan = chain.sampler.plan(grid, descent(grid))
    used = compiled.memory_analysis()
    return {
        "steps": steps,
        "temporary": used.temp_size_in_bytes,
        "arguments": used.argument_size_in_bytes,
        "output": used.output_size_in_bytes,
        "code": used.generated_code_size_in_bytes,
        "rows": sum(np.asarray(leaf).nbytes for leaf in jax.tree.leaves(rounded(plan.rows))),
    }


def whole(chain: Chain, short: int, steps: int) -> dict:
    """A whole chain's seconds, its bare network's, and its memory beside a short one's."""
    began = time.perf_counter()
    compiled = in_one_scan(chain, steps)
    compile_seconds = time.perf_counter() - began
    return {
        "images": len(chain.keys),
        "steps": steps,
        "compile_seconds": compile_seconds,
        "seconds": seconds(compiled, chain),
        "network_seconds": seconds(bare(chain, steps), chain),
        "bytes": [
            memory(in_one_scan(chain, short), chain, short),
            memory(compiled, chain, steps),
        ],
    }


def ask_peers(python: Path, sizes: dict[str, int]) -> dict:
    """Their run, with one thread or one a core, whichever is faster."""
    flags = [f"--{name}={value}" for name, value in sizes.items()]
    command = [str(python.absolute()), "-m", "benchmarks.peer_sampling", *flags]
    # Threads that wait by spinning take ten times as long when others use the machine.
    tried = [
        record.run([*command, f"--threads={threads}"], OMP_WAIT_POLICY="PASSIVE")
        for threads in {1, os.cpu_count() or 1}
    ]
    return min((json.loads(each.lines[-1][1]) for each in tried), key=lambda peer: peer["seconds"])


def against_peers(python: Path, chain: Chain, steps: int) -> dict:
    """Seconds of as many images and steps, ours and theirs in turn."""
    count, compiled = parameter_count(chain.params), in_one_scan(chain, steps)
    sizes = {"parameters": count, "images": len(chain.keys), "steps": steps}
    seconds(compiled, chain)
    rounds = []
    for _ in range(PEER_ROUNDS):
        busy = time.process_time()
        ours = {"seconds": seconds(compiled, chain), "cpu_seconds": time.process_time() - busy}
        rounds.append({"ours": ours, "peer": ask_peers(python, sizes)})
    ratios = {
        f"{key}_ratio": float(np.median([each["peer"][key] / each["ours"][key] for each in rounds]))
        for key in ("seconds", "cpu_seconds")
    }
    print(f"parameters: ours {count}, theirs {rounds[0]['peer']['parameters']}", flush=True)
    return {
        **sizes,
        "seconds": float(np.median([each["ours"]["seconds"] for each in rounds])),
        "peer_seconds": float(np.median([each["peer"]["seconds"] for each in rounds])),
        **ratios,
        "rounds": rounds,
    }


def summary(config, result: dict) -> str:
    """One line."""
    costs, full = result["cost"], result["whole"]
    short, long = full["bytes"]
    said = (
        f"{config.name}: {full['images']} images in {full['steps']} steps take "
        f"{full['seconds']:.1f} s; sampling {100 * costs['overhead']:+.1f}% over its network calls "
        f"(its own work {100 * costs['own_over_network']:.2f}%); a loop of steps takes "
        f"{costs['loop_over_scan']:.2f} times the scan; temporary memory "
        f"{short['temporary'] / 2**20:.2f} MiB at {short['steps']} steps, "
        f"{long['temporary'] / 2**20:.2f} MiB at {long['steps']}"
    )
    if "peers" in result:
        said += (
            f"; diffusers takes {result['peers']['seconds_ratio']:.2f} times as long as the scan"
        )
        said += f" ({result['peers']['cpu_seconds_ratio']:.2f} times the processor's time)"
    return said


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--steps", type=int, default=1000, help="of the whole chain")
    parser.add_argument("--short", type=int, default=100, help="steps of the repeated chains")
    parser.add_argument("--repeats", type=int, default=12)
    parser.add_argument("--peers", type=Path, help="an interpreter with torch and diffusers")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    if given.peers:
        record.run([str(given.peers.absolute()), "-c", "import diffusers, torch"])  # or fail now
    run = run_folder.read(given.workdir)
    parts = build.diffusion(run.config, run.data)
    params = restore_ema(run, parts, None, devices.shardings(jax.devices())).ema
    index, classes = jnp.arange(given.images), run.config.model.classes
    keys = image_keys(stream_key(0, Stream.SAMPLE), index)
    chain = Chain(run, parts, params, keys, index % classes if classes else None)
    result = {
        "cost": cost(chain, given.short, given.repeats),
        "whole": whole(chain, given.short, given.steps),
    }
    if given.peers:
        result["peers"] = against_peers(given.peers, chain, given.short)
    record.save(given.out, {"config": run.config.name, **result})
    print(summary(run.config, result))


if __name__ == "__main__":
    main()
