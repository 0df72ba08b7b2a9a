"""Time ancestral sampling beside PyTorch's, and beside its own network calls.

python -m benchmarks.speed.sample --config configs/digits.py --batch 64 --peer diffusers
    [--steps 1000] [--rounds N] [--peers PYTHON] [--out x.json] [--config.key=value ...]

Ours is one scan, the peer's a loop of network calls. In turn with them run as many bare network
calls of ours, and the scan with a network that costs nothing. Parameters are freshly drawn; their
values do not change the time of a call.
"""

from contextlib import ExitStack
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from benchmarks.harness import comparison, programs
from benchmarks.harness.peer_client import Peer
from diffusion_jax.command_line import positive, run
from diffusion_jax.core.keys import Stream, image_keys, image_normal, stream_key
from diffusion_jax.core.schedules import Schedule
from diffusion_jax.devices.cores import each_core_a_device
from diffusion_jax.samplers.grids import make_grid
from diffusion_jax.samplers.sample import SAMPLERS, sample


class Chain(NamedTuple):
    """What is sampled: a job, its parameters, one key and perhaps one class per image."""

    job: programs.Job
    params: Any
    keys: jax.Array
    label: jax.Array | None

    def grid(self, steps: int) -> Schedule:
        """Return evenly spaced training steps."""
        return make_grid("uniform", self.job.diffusion.schedule, steps)


def make_chain(job: programs.Job) -> Chain:
    """Return the chain that draws one batch of images, spread over all devices."""
    index, classes = jnp.arange(job.size), job.settings.model.classes
    keys = image_keys(stream_key(0, Stream.SAMPLE), index)
    return Chain(job, *job.placed(keys, index % classes if classes else None))


def in_one_scan(chain: Chain, steps: int) -> programs.Program:
    """Compile the chain as one program."""
    settings, diffusion = chain.job.settings, chain.job.diffusion
    sampler = SAMPLERS["ancestral"](variance=settings.variance)

    def draw(params, keys, label):
        denoise_on = partial(diffusion.denoise, params, label, settings.sample.clip)
        return sample(sampler, denoise_on, keys, chain.job.data.shape, chain.grid(steps))

    return programs.program(draw, chain.params, chain.keys, chain.label)


def bare(chain: Chain, steps: int) -> programs.Program:
    """Compile as many network calls and nothing else."""

    def call(params, keys, label):
        x = image_normal(keys, chain.job.data.shape)
        times = jnp.asarray(chain.grid(steps).time[::-1], jnp.float32)
        return programs.network_calls(chain.job.diffusion, params, x, times, label)

    return programs.program(call, chain.params, chain.keys, chain.label)


def fastest(peers: list[Peer], images: int) -> list[Peer]:
    """Keep the peer with the fastest second chain of three steps: whole chains take long."""

    def second(each: Peer) -> float:
        return [each.ask("sample", images, 3)["seconds"] for _ in range(2)][1]

    return [min(peers, key=second)] if peers else []


def main(arguments: list[str]) -> None:
    """Measure and report."""
    parser = comparison.parser("sample", __doc__)
    parser.add_argument("--steps", type=positive, default=1000)
    parser.set_defaults(batch=64, rounds=3)
    each_core_a_device()
    given, job = comparison.parse(parser, arguments)
    with ExitStack() as stack:
        peers = fastest(comparison.start_peers(given, job, stack), job.size)
        chain = make_chain(job)
        scan = in_one_scan(chain, given.steps)
        free = chain._replace(job=programs.own_work(job))
        others = {"network": bare(chain, given.steps), "own": in_one_scan(free, given.steps)}
        calls = {name: program.call for name, program in others.items()}
        command = ("sample", job.size, given.steps)
        result = comparison.compare(job, scan, peers, command, given, calls, given.steps <= 100)
    used = scan.compiled.memory_analysis().temp_size_in_bytes
    result |= {"steps": given.steps, "temporary_bytes": used}
    line = comparison.throughput(result, job.size, "img/s")
    comparison.report("sample", given, job, comparison.abouts(peers), result, line)


if __name__ == "__main__":
    run(main)
