"""How much memory does training take? Each in a new process.

python -m benchmarks.speed.memory --config configs/cifar10.py --batch 16 --peer diffusers
    [--rounds N] [--peers PYTHON] [--out x.json]

Resident memory of the process at its peak, over what it was after the imports: during later
training steps (what is compared), and from the start, with what compiling took. On an
accelerator its own peak is compared; resident memory is then the host's.
"""

from functools import partial
from typing import Any

import jax

from benchmarks.harness import comparison, peer_client, process_memory, programs, timing
from diffusion_jax.commands.arguments import run
from diffusion_jax.devices.allocator import give_back

STEPS = 2


def once(job: programs.Job) -> dict[str, int]:
    """Bytes of this process."""
    imported = process_memory.resident_bytes()
    program = programs.train_step(job)
    for _ in range(STEPS):
        jax.block_until_ready(program.call())
    whole = process_memory.peak_bytes()
    give_back()  # as training does after its first step; the peer, too, in `forget`
    process_memory.forget_peak()
    for _ in range(STEPS):
        jax.block_until_ready(program.call())
    found = {"imported": imported, "whole": whole, "steps": process_memory.peak_bytes()}
    stats = jax.local_devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in stats:
        found["device"] = stats["peak_bytes_in_use"]
    return grown(found)


def peer_in_process(given, job: programs.Job, abouts: dict[str, Any], name: str) -> dict[str, int]:
    """The same of a peer's; `abouts` learns what it is."""
    with peer_client.started(
        given.peers, name, peer_client.settings(job.settings, job.data)
    ) as asked:
        for _ in range(STEPS):
            asked.ask("train")
        whole = asked.ask("memory")
        asked.ask("forget")
        for _ in range(STEPS):
            asked.ask("train")
        steps = asked.ask("memory")
        found = {"imported": asked.about["imported_bytes"], "whole": whole["peak"]}
        found["steps"] = steps["peak"]
        if "device_peak" in whole:
            found["device"] = whole["device_peak"]
        abouts[name] = asked.about
    return grown(found)


def grown(found: dict[str, int]) -> dict[str, int]:
    """With `bytes`, what is compared."""
    return {**found, "bytes": found.get("device", found["steps"] - found["imported"])}


def main(arguments: list[str]) -> None:
    """Measure and report."""
    parser = comparison.parser("memory", __doc__ or "")
    comparison.add_once(parser)
    given, job = comparison.parse(parser, arguments)
    if given.once:
        return comparison.answer(once(job))
    names, abouts = peer_client.CHOICES[given.peer], {}
    calls = {"ours": partial(comparison.in_process, "memory", arguments)}
    calls |= {name: partial(peer_in_process, given, job, abouts, name) for name in names}
    taken = timing.in_turn(calls, given.rounds, warm=False)
    size = {name: timing.median(taken, name, "bytes") for name in calls}
    result = {"bytes": size, **comparison.against(names, taken, "bytes"), "rounds": taken}
    line = comparison.amounts({name: n / 2**30 for name, n in size.items()}, result, "GiB")
    said = [
        f"{name}: {timing.median(taken, name, 'whole') / 2**30:.2f} GiB at the peak of the whole "
        f"process, {timing.median(taken, name, 'imported') / 2**30:.2f} GiB after the imports"
        for name in calls
    ]
    comparison.report("memory", given, job, abouts, result, line, *said)


if __name__ == "__main__":
    run(main)
