"""How many steps fit into `train.minutes`, estimated once from the speed of a few steps."""

import math
import time
from collections import deque
from contextlib import ExitStack
from typing import NamedTuple

import jax

from diffusion_jax import build
from diffusion_jax.configuration import stretched
from diffusion_jax.data.dataset import Source
from diffusion_jax.errors import UserError
from diffusion_jax.processes import cluster
from diffusion_jax.run.prepare import Prepared, read_and_compile, serve
from diffusion_jax.training.history import AHEAD

MEASURED = 2.0  # seconds over which the speed is measured
MOST_MEASURED = 200  # steps
SHARE_OF_TIME = 0.95  # of the time left; saving and logging take the rest


class Pace(NamedTuple):
    """Seconds that it takes to compile the step, and to run it once."""

    compile_seconds: float
    step_seconds: float


def measured_pace(config, source: Source, diffusion: build.Diffusion) -> tuple[Pace, Source]:
    """Time real steps of a run that is discarded afterwards.

    Returns:
        The pace, and the source, whose images are now in memory unless streamed.
    """
    # A number of steps that no other run had, so the program is not in the compilation cache.
    length = cluster.on_first_process(lambda: config.train.steps + time.time_ns() % 1_000_003)
    training = build.training(stretched(config, length), diffusion)
    prepared = read_and_compile(config, source, training, fresh=True)
    pace = Pace(prepared.compile_seconds, seconds_per_step(config, source, prepared))
    return pace, source if prepared.dataset is None else source.holding(prepared.dataset)


def seconds_per_step(config, source: Source, prepared: Prepared) -> float:
    """Run some steps from a new state, and return the seconds that one takes."""
    parallel = prepared.parallel
    with ExitStack() as stack:
        batch = serve(config, source, prepared.dataset, 0, stack)
        state = parallel.place_state(prepared.draw())

        def seconds(first: int, count: int) -> float:
            nonlocal state
            started, under_way = time.perf_counter(), deque()
            for step in range(first, first + count):
                state, metrics = parallel.step(state, parallel.place_batch(batch(step)))
                under_way.append(metrics.loss)
                if len(under_way) > AHEAD:  # as in the loop
                    jax.block_until_ready(under_way.popleft())
            jax.block_until_ready(state)
            return (time.perf_counter() - started) / count

        seconds(0, 1)  # the first one loads the program
        one = seconds(1, 1)
        count = min(max(math.ceil(MEASURED / one), 2), MOST_MEASURED)
        count = cluster.on_first_process(lambda: count)  # the same on all processes
        return seconds(2, count)


def fitting_steps(minutes: float, pace: Pace, began: float) -> int:
    """Return the number of steps that end `minutes` after `began`, a time of `perf_counter`.

    The time to compile is subtracted: the step is compiled again for the number returned, on
    which its learning rate depends.

    Raises:
        UserError: not even one step fits.
    """
    passed = time.perf_counter() - began
    left = SHARE_OF_TIME * (60.0 * minutes - passed - pace.compile_seconds)
    steps = int(left / pace.step_seconds)
    if steps < 1:
        needed = (passed + pace.compile_seconds + pace.step_seconds) / (60.0 * SHARE_OF_TIME)
        raise UserError(
            f"config.train.minutes is {minutes:g}, but reading, compiling and one step take "
            f"{needed:.2g} minutes; set it higher"
        )
    return steps
