"""The training loop in the caller's hands, on a data set or on arrays in memory."""

import time
import warnings
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import jax

from diffusion_jax import build
from diffusion_jax.configuration import (
    Config,
    changed,
    load,
    stretched,
    with_shorter_warmup,
)
from diffusion_jax.data.arrays import from_arrays
from diffusion_jax.data.dataset import Dataset, Source, loaded
from diffusion_jax.data.sources import part_of
from diffusion_jax.devices import sharding
from diffusion_jax.errors import Diverged, UserError
from diffusion_jax.models.packing import unpack_on_host
from diffusion_jax.processes import cluster
from diffusion_jax.run import initial
from diffusion_jax.run.announcements import warmup_change
from diffusion_jax.run.pace import fitting_steps, measured_pace
from diffusion_jax.run.prepare import open_data, read_and_compile, serve
from diffusion_jax.run.run import Run
from diffusion_jax.training.history import AHEAD
from diffusion_jax.training.state import TrainState
from diffusion_jax.training.step import Metrics


@dataclass(frozen=True, eq=False)
class State:
    """The state after a step; its arrays become invalid when the next step is taken.

    step: the number of steps taken.
    placed: everything that training changes, as the devices hold it.
    """

    step: int
    placed: TrainState = field(repr=False)
    parallel: sharding.Parallel = field(repr=False)
    config: Config = field(repr=False)
    diffusion: build.Diffusion = field(repr=False)
    compiled: dict[str, Any] = field(repr=False)

    @cached_property
    def params(self) -> Any:
        """The network's parameters, a nested dict with the names of its layers."""
        return self._plain(self.placed.params)

    @cached_property
    def ema(self) -> Any:
        """Their average, likewise."""
        return self._plain(self.placed.ema)

    def _plain(self, packed: Any) -> Any:
        return unpack_on_host(self.parallel.gather(packed), self.diffusion.shapes)

    def run(self) -> Run:
        """Return the run so far, which outlives the next step."""
        params = jax.device_get(self.ema)
        return Run(self.config, self.diffusion, params, self.step, None, self.compiled)


def steps(
    config: str | Config,
    images: Any = None,
    labels: Any = None,
    *,
    levels: int | None = None,
    init: str = "",
) -> Iterator[tuple[State, Metrics]]:
    """Train, and yield `(state, metrics)` after each step; nothing is written.

    The steps are those of `train.py`, bit for bit on the same devices.

    Args:
        config: a configuration, or the name of one.
        images: uint8 `[n, h, w, c]` or `[n, h, w]`; by default the config's training split.
        labels: integers `[n]` from 0, if the images have classes.
        levels: how many values a pixel of `images` can take; 256 by default.
        init: `RUN` or `RUN:STEP` whose weights to begin with.

    Raises:
        UserError: an argument is wrong.
        Diverged: too many updates in a row were not finite.
    """
    return started(*configured(config, images, labels, levels), init)


def started(config: Config, own: Source | None, init: str = "") -> Iterator[tuple[State, Metrics]]:
    """Check a configuration, and return its steps on its data or a caller's `own`."""
    began = time.perf_counter()
    cluster.check_joined()

    def warn(line: str) -> None:
        if line:
            warnings.warn(line, stacklevel=4)

    given, config = config.optimizer.warmup_steps, with_shorter_warmup(config)
    source, diffusion = open_data(config, own, warn)
    warn(warmup_change(given, config))
    weights = initial.weights(init, config, diffusion, warn) if init else None
    return _steps(config, source, diffusion, weights, began)


def _steps(
    config: Config,
    source: Source,
    diffusion: build.Diffusion,
    weights: initial.Weights | None,
    began: float,
) -> Iterator[tuple[State, Metrics]]:
    if config.train.minutes:
        pace, source = measured_pace(config, source, diffusion)
        config = stretched(config, fitting_steps(config.train.minutes, pace, began))
    training, compiled = build.training(config, diffusion), {}
    with ExitStack() as stack:
        prepared = read_and_compile(config, source, training, fresh=True)
        parallel = prepared.parallel
        batch = serve(config, source, prepared.dataset, 0, stack)
        state, under_way = parallel.place_state(prepared.begin(weights)), deque()
        for step in range(1, config.train.steps + 1):
            state, metrics = parallel.step(state, parallel.place_batch(batch(step - 1)))
            under_way.append(metrics.skipped.in_a_row)
            last = step == config.train.steps
            while len(under_way) > (0 if last else AHEAD):
                _check_finite(int(parallel.read(under_way.popleft())), config.train.max_skipped)
            now = State(step, state, parallel, config, diffusion, compiled)
            yield now, parallel.single(metrics)


def _check_finite(in_a_row: int, most: int) -> None:
    if in_a_row >= most:
        raise Diverged(
            f"training diverged: {in_a_row} updates in a row were not finite; "
            "try a lower config.optimizer.learning_rate"
        )


def configured(
    config: str | Config, images: Any = None, labels: Any = None, levels: int | None = None
) -> tuple[Config, Source | None]:
    """Load a configuration by name; a caller's own `images` replace its data set.

    Raises:
        UserError: there is no such configuration, or the images or labels are wrong.
    """
    given: Config = load(config) if isinstance(config, str) else config
    if images is None:
        if labels is not None or levels is not None:
            raise UserError("labels and levels describe images: give images, too")
        return given, None
    classes = given.model.get("classes", 0)
    dataset = from_arrays(images, labels, 256 if levels is None else levels, classes)
    if labels is not None and not classes:
        warnings.warn("labels have no effect: config.model.classes is 0", stacklevel=3)
    if levels is None and (highest := int(dataset.images.max())) < 128:
        warnings.warn(
            f"the images use only levels 0..{highest} of 0..255; if no image can have a higher "
            f"level, pass levels={highest + 1}",
            stacklevel=3,
        )
    own = part_of(loaded(dataset), "arrays", given.data.split, given.data.holdout)
    return changed(given, {"data": {"name": "arrays", "dir": ""}}), own


def load_data(config: str | Config, split: str | None = None) -> Dataset:
    """Load a split of a configuration's data set: `images` uint8 `[n, h, w, c]`, `labels` `[n]`.

    Args:
        split: by default the one to train on.

    Raises:
        UserError: there is no such data set or split.
    """
    return build.source(configured(config)[0], split).load()
