"""Train on images in memory, with the loop in the caller's hands."""

import time
import warnings
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import numpy as np

from diffusion_jax import build
from diffusion_jax.configuration import Config, changed, load, stretched
from diffusion_jax.configuration.check import check
from diffusion_jax.data.dataset import Dataset, Source, loaded
from diffusion_jax.devices import sharding
from diffusion_jax.devices.compiler import enable_cache
from diffusion_jax.errors import Diverged, UserError
from diffusion_jax.models.packing import unpack_on_host
from diffusion_jax.run.pace import fitting_steps, measured_pace
from diffusion_jax.run.prepare import read_and_compile, serve
from diffusion_jax.run.run import Run
from diffusion_jax.training.history import AHEAD
from diffusion_jax.training.state import TrainState
from diffusion_jax.training.step import Metrics

EXPECTED = "expected uint8 [n, h, w, c] or [n, h, w]"


@dataclass(frozen=True, eq=False)
class State:
    """The state after a step; its arrays become invalid when the next step is taken.

    whole: everything that training changes; its small parameters are packed into one array.
    """

    whole: TrainState
    config: Config
    diffusion: build.Diffusion

    @cached_property
    def step(self) -> int:
        """The number of steps taken."""
        return int(self.whole.step)

    @cached_property
    def params(self) -> Any:
        """The network's parameters, a nested dict with the names of its layers."""
        return unpack_on_host(self.whole.params, self.diffusion.shapes)

    @cached_property
    def ema(self) -> Any:
        """Their average, likewise."""
        return unpack_on_host(self.whole.ema, self.diffusion.shapes)

    def run(self) -> Run:
        """Return the run so far, which outlives the next step."""
        return Run(self.config, self.diffusion, jax.device_get(self.ema), self.step)


def steps(
    config: str | Config, images: Any = None, labels: Any = None, *, levels: int = 256
) -> Iterator[tuple[State, Metrics]]:
    """Train, and yield `(state, metrics)` after each step; nothing is written.

    The steps are those of `train.py`, bit for bit.

    Args:
        config: a configuration, or the name of one.
        images: uint8 `[n, h, w, c]` or `[n, h, w]`; by default the config's training split.
        labels: integers `[n]` from 0, if the images have classes.
        levels: how many values a pixel can take.

    Raises:
        UserError: an argument is wrong.
        Diverged: too many updates in a row were not finite.
    """
    began = time.perf_counter()
    given: Config = configured(config, own_images=images is not None)
    check(given)
    sharding.check_batch(given.train.batch_size, jax.device_count(), given.train.accumulate)
    enable_cache()
    source = build.source(given) if images is None else as_source(images, labels, levels)
    diffusion = build.diffusion(given, source.spec)
    if given.train.minutes:
        pace, source = measured_pace(given, source, diffusion)
        given = stretched(given, fitting_steps(given.train.minutes, pace, began))
    training = build.training(given, diffusion)
    with ExitStack() as stack:
        dataset, draw, parallel, _ = read_and_compile(given, source, training, fresh=True)
        batch = serve(given, source, dataset, 0, stack)
        state, under_way = parallel.place_state(draw()), deque()
        for step in range(given.train.steps):
            state, metrics = parallel.step(state, parallel.place_batch(batch(step)))
            under_way.append(metrics)
            if len(under_way) > AHEAD:
                _check_finite(under_way.popleft(), parallel, given.train.max_skipped)
            yield State(parallel.single(state), given, diffusion), parallel.single(metrics)


def configured(config: str | Config, own_images: bool) -> Config:
    """Load a configuration by name; `own_images` replace its data set."""
    config = load(config) if isinstance(config, str) else config
    return changed(config, {"data": {"name": "arrays", "dir": ""}}) if own_images else config


def load_data(config: str | Config, split: str | None = None) -> Dataset:
    """Load a split of a configuration's data set: `images` uint8 `[n, h, w, c]`, `labels` `[n]`.

    Args:
        split: by default the one to train on.

    Raises:
        UserError: there is no such data set or split.
    """
    return build.source(configured(config, own_images=False), split).load()


def _check_finite(metrics: Metrics, parallel: sharding.Parallel, most: int) -> None:
    in_a_row = int(parallel.read(metrics.skipped.in_a_row))
    if in_a_row >= most:
        raise Diverged(
            f"training diverged: {in_a_row} updates in a row were not finite; "
            "try a lower config.optimizer.learning_rate"
        )


def as_source(images: Any, labels: Any, levels: int) -> Source:
    """Check images and labels given to training.

    Raises:
        UserError: they have another type or shape, or values outside their range.
    """
    given = np.asarray(images)
    if given.dtype != np.uint8 or given.ndim not in (3, 4):
        raise UserError(f"images are {given.dtype} {list(given.shape)}; {EXPECTED}")
    if given.ndim == 3:
        given = given[..., None]
    if not given.size:
        raise UserError(f"images are empty, {list(given.shape)}; {EXPECTED}")
    if not isinstance(levels, int) or not 2 <= levels <= 256:
        raise UserError(f"levels is {levels}; it must be a whole number, 2 to 256")
    if 2 * int(given.max()) < levels - 1:
        warnings.warn(
            f"the images use only levels 0..{given.max()} of 0..{levels - 1}; "
            f"if no image can have a higher level, pass levels={int(given.max()) + 1}",
            stacklevel=4,
        )
    if labels is None:
        return loaded(Dataset(given, np.zeros(len(given), np.int32), levels, classes=0))
    numbers = np.asarray(labels)
    if numbers.dtype.kind not in "iu" or numbers.shape != (len(given),):
        raise UserError(
            f"labels are {numbers.dtype} {list(numbers.shape)}; expected integers [{len(given)}]"
        )
    classes = int(numbers.max()) + 1
    return loaded(Dataset(given, numbers.astype(np.int32), levels, classes))
