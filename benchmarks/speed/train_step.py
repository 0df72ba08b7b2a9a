"""Time a training step, or one call of the network, beside PyTorch's.

python -m benchmarks.train_step --config configs/cifar10.py --batch 16 --peer diffusers
    [--forward] [--rounds N] [--peers PYTHON] [--out x.json] [--config.key=value ...]

Ours and the peer run in turn on images in memory. `--peer diffusers` has the same layers; it runs
eagerly and compiled, and the faster counts. With --forward each core of a CPU is a device, as in
sampling, so the batch must divide by the number of cores.
"""

from contextlib import ExitStack

from benchmarks.harness import comparison, programs
from diffusion_jax.command_line import run
from diffusion_jax.devices.cores import each_core_a_device


def main(arguments: list[str]) -> None:
    """Measure and report."""
    parser = comparison.parser("train_step", __doc__)
    parser.add_argument("--forward", action="store_true", help="only the network, no gradient")
    if "--forward" in arguments:
        each_core_a_device()
    given, job = comparison.parse(parser, arguments)
    name, command = ("forward", "forward") if given.forward else ("train_step", "train")
    with ExitStack() as stack:
        peers = comparison.start_peers(given, job, stack)
        program = programs.forward(job) if given.forward else programs.train_step(job)
        result = comparison.compare(job, program, peers, (command,), given)
    line = comparison.throughput(result, job.size, "img/s")
    comparison.report(name, given, job, comparison.abouts(peers), result, line)


if __name__ == "__main__":
    run(main)
