"""Time reading and augmenting a batch beside a training step, or streaming on its own.

python -m benchmarks.speed.data --config configs/digits.py [--batch N] [--rounds N] [--out x.json]
    [--stream] [--config.data.dir=FOLDER] [--config.key=value ...]

Reading is the host's work (indices, gather, copy to the device), augmenting the device's (floats
and flips). With --stream: images per second from `data.stream`, by threads and by processes.
"""

import time
from collections.abc import Callable
from contextlib import closing
from typing import Any

import jax
import numpy as np

from benchmarks.harness import comparison, programs, records, timing
from diffusion_jax import build
from diffusion_jax.command_line import run
from diffusion_jax.core.keys import Stream, image_keys, stream_key
from diffusion_jax.data.batches import Order
from diffusion_jax.data.stream import BatchStream
from diffusion_jax.data.transforms import random_flip, to_unit_range
from diffusion_jax.training import feed


def median_seconds(action: Callable[[int], Any], repeats: int) -> float:
    """Return the median seconds of `action(i)`, waiting for its result."""
    taken = [timing.timed(lambda i=i: action(i))["seconds"] for i in range(repeats)]
    return float(np.median(taken))


def beside_a_step(settings, repeats: int) -> dict[str, float]:
    """Return the seconds of reading, of augmenting and of the whole step."""
    source = build.source(settings)
    order = Order(settings.seed, settings.train.batch_size, source.size)
    batch = feed.in_memory(source.load(), order)
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


def streamed(settings, count: int) -> dict[str, float]:
    """Return images per second by the number of worker processes; 0 means threads."""
    source, size = build.source(settings), settings.train.batch_size
    order = Order(settings.seed, size, source.size)
    rates = {}
    for workers in (0, 1, 2):
        with closing(BatchStream(source, order, workers=workers)) as stream:
            for _ in range(8):
                next(stream)
            began = time.perf_counter()
            for _ in range(count):
                next(stream)
            rates[str(workers)] = count * size / (time.perf_counter() - began)
    return rates


def main(arguments: list[str]) -> None:
    """Measure and report."""
    parser = comparison.parser("data", __doc__, False)
    parser.add_argument("--stream", action="store_true")
    given, settings = comparison.parse_config(parser, arguments)
    about = {"config": settings.name, "batch": settings.train.batch_size}
    if given.stream:
        rates = streamed(settings, 40 * given.rounds)
        records.save(given.out, {**about, "images_per_second": rates})
        return print(f"streamed {settings.name}: {rates} images/s by workers")
    seconds = beside_a_step(settings, given.rounds)
    share = (seconds["read"] + seconds["augment"]) / seconds["step"]
    records.save(given.out, {**about, "share": share, "seconds": seconds})
    print(f"data {settings.name} b{settings.train.batch_size}: {share:.2%} of a step")


if __name__ == "__main__":
    run(main)
