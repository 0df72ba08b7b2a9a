"""Measure the memory that training takes, ours and the peer's, each in a new process.

python -m benchmarks.speed.memory --config configs/cifar10.py --batch 16 --peer diffusers
    [--rounds N] [--peers PYTHON] [--out x.json]

Compared is the peak of resident memory during later training steps, over what it was after the
imports; on an accelerator, the device's own peak. `whole` is the peak of the whole process, with
compiling.
"""

import json
from functools import partial

import jax

from benchmarks.harness import comparison, peer_client, process_memory, programs, timing
from diffusion_jax.command_line import run
from diffusion_jax.devices.allocator import give_back

STEPS = 2


def once(job: programs.Job) -> dict[str, int]:
    """Return the bytes of this process."""
    imported = process_memory.resident_bytes()
    program = programs.train_step(job)
    for _ in range(STEPS):
        jax.block_until_ready(program.call())
    whole = process_memory.peak_bytes()
    give_back()  # as training does after its first step, and the peer in `forget`
    process_memory.forget_peak()
    for _ in range(STEPS):
        jax.block_until_ready(program.call())
    stats = jax.local_devices()[0].memory_stats() or {}
    return found(imported, whole, process_memory.peak_bytes(), stats.get("peak_bytes_in_use"))


def peer_in_process(given, job: programs.Job, abouts: comparison.Abouts, name: str):
    """Return the same of a peer's process; note what it is."""
    settings = peer_client.settings(job.settings, job.data)
    with peer_client.started(given.peers, name, settings) as peer:
        for _ in range(STEPS):
            peer.ask("train")
        whole = peer.ask("memory")
        peer.ask("forget")
        for _ in range(STEPS):
            peer.ask("train")
        steps, abouts[name] = peer.ask("memory"), peer.about
    imported = peer.about["imported_bytes"]
    return found(imported, whole["peak"], steps["peak"], whole.get("device_peak"))


def found(imported: int, whole: int, steps: int, device: int | None) -> dict[str, int]:
    """Name the figures; `bytes` is what is compared."""
    compared = device if device is not None else steps - imported
    return {"imported": imported, "whole": whole, "steps": steps, "bytes": compared}


def main(arguments: list[str]) -> None:
    """Measure and report."""
    parser = comparison.parser("memory", __doc__, once=True)
    given, job = comparison.parse(parser, arguments)
    if given.once:
        return print(json.dumps(once(job)))
    names, abouts = peer_client.CHOICES[given.peer], {}
    new_process = partial(comparison.in_process, "memory", arguments, {})
    calls: dict[str, timing.Call] = {"ours": new_process}
    calls |= {name: partial(peer_in_process, given, job, abouts, name) for name in names}
    rounds = timing.in_turn(calls, given.rounds, warm=False)
    size = timing.medians(rounds, "bytes")
    result = {"bytes": size, **comparison.against(names, rounds, "bytes"), "rounds": rounds}
    line = comparison.amounts({name: n / 2**30 for name, n in size.items()}, result, "GiB")
    comparison.report("memory", given, job, abouts, result, line)


if __name__ == "__main__":
    run(main)
