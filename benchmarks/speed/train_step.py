"""How fast is a training step, and how far from what the machine can do?

python -m benchmarks.speed.train_step --config configs/cifar10.py --batch 16 --peer diffusers
    [--forward] [--rounds N] [--awake] [--peers PYTHON] [--out x.json] [--config.key=value ...]

Ours and the peer in turn on images that are in memory, medians; with --forward one call of the
network alone, each core of a CPU a device as in sampling: the batch must divide by them.
`--peer diffusers` has the same layers, in eager mode and compiled, of which the faster counts;
`--peer denoising_diffusion_pytorch` another one of the same widths.
"""

from contextlib import ExitStack

from benchmarks.harness import comparison, programs
from diffusion_jax.commands.arguments import run
from diffusion_jax.devices.cores import each_core_a_device


def main(arguments: list[str]) -> None:
    """Measure and report."""
    parser = comparison.parser("train_step", __doc__ or "")
    comparison.add_awake(parser)
    parser.add_argument("--forward", action="store_true", help="the network alone")
    if "--forward" in arguments:
        each_core_a_device()
    given, job = comparison.parse(parser, arguments)
    name, command = ("forward", "forward") if given.forward else ("train_step", "train")
    with ExitStack() as stack:
        peers = comparison.start_peers(given, job, stack)
        program = programs.forward(job) if given.forward else programs.train_step(job)
        result = comparison.compare(job, program, peers, (command,), given)
    size = job.settings.train.batch_size
    line = comparison.throughput(result, size, "img/s")
    comparison.report(name, given, job, comparison.abouts(peers), result, line)


if __name__ == "__main__":
    run(main)
