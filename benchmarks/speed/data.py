"""What share of a training step do reading and augmenting cost?

python -m benchmarks.speed.data --config configs/digits.py [--batch N] [--data_dir FOLDER] [--out X.json]
    [--config.key=value ...]
python -m benchmarks.speed.data --stream --config configs/cifar10.py [...]

Reading is the host's work (indices, gather, copy to the device), augmenting the device's
(conversion to floats and flips); both are timed alone and set against the whole step.
With --stream: how many images a second are read while they are needed, by threads and processes.
"""

import time
from contextlib import closing
from pathlib import Path

import jax
import numpy as np

from benchmarks.harness import programs, records
from diffusion_jax import build, config
from diffusion_jax.commands.arguments import Parser, positive, run, split_overrides
from diffusion_jax.commands.feed import batches
from diffusion_jax.core.keys import Stream, image_keys, stream_key
from diffusion_jax.data.stream import BatchStream
from diffusion_jax.data.transforms import random_flip, to_unit_range


def median_seconds(action, repeats: int) -> float:
    """Median seconds of `action(i)`, waited for."""
    seconds = []
    for i in range(repeats):
        began = time.perf_counter()
        jax.block_until_ready(action(i))
        seconds.append(time.perf_counter() - began)
    return float(np.median(seconds))


def measure(settings, repeats: int) -> dict:
    """Seconds of reading, of augmenting and of the whole step."""
    source = build.source(settings)
    batch = batches(settings, source.load())
    job = programs.Job(settings, source.spec, build.diffusion(settings, source.spec))
    place, program = programs.spread(job).place_batch, programs.train_step(job)
    placed = place(batch(0))

    @jax.jit
    def augment(batch, step):
        x = to_unit_range(batch.images, source.levels)
        keys = image_keys(stream_key(settings.seed, Stream.FLIP, step), batch.index)
        return random_flip(keys, x) if settings.data.flip else x

    jax.block_until_ready((program.call(), augment(placed, 0)))
    return {
        "read": median_seconds(lambda i: place(batch(i)), 50 * repeats),
        "augment": median_seconds(lambda i: augment(placed, i), 50 * repeats),
        "step": median_seconds(lambda i: program.call(), repeats),
    }


def streamed(settings, batches: int) -> dict[str, float]:
    """Images a second from data.stream by the number of worker processes; 0 is threads."""
    source, size = build.source(settings), settings.train.batch_size
    rates = {}
    for workers in (0, 1, 2):
        with closing(BatchStream(source, settings.seed, size, workers=workers)) as stream:
            for _ in range(8):
                next(stream)
            began = time.perf_counter()
            for _ in range(batches):
                next(stream)
            rates[str(workers)] = batches * size / (time.perf_counter() - began)
    return rates


def main(arguments: list[str]) -> None:
    """Measure and report."""
    parser = Parser(prog="python -m benchmarks.speed.data", description=__doc__)
    parser.add_argument("--config", default="configs/digits.py")
    parser.add_argument("--batch", type=positive)
    parser.add_argument("--data_dir", default="")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--stream", action="store_true")
    parser.add_argument("--out", type=Path)
    rest, overrides = split_overrides(arguments)
    given = parser.parse_args(rest)
    overrides.append(("data.dir", given.data_dir))
    if given.batch:
        overrides.append(("train.batch_size", str(given.batch)))
    settings = config.load(given.config, overrides)
    if given.stream:
        rates = streamed(settings, 40 * given.repeats)
        records.save(given.out, {"config": settings.name, "images_per_second": rates})
        print(f"streamed {settings.name}: {rates} images/s by workers")
        return
    seconds = measure(settings, given.repeats)
    share = (seconds["read"] + seconds["augment"]) / seconds["step"]
    result = {"config": settings.name, "batch": settings.train.batch_size, "share": share}
    records.save(given.out, {**result, "seconds": seconds})
    print(f"data {settings.name} b{settings.train.batch_size}: {share:.2%} of a step")


if __name__ == "__main__":
    run(main)
