"""What the training loop is given: how far to go, and what it calls on the way."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import jax

from diffusion_jax.checkpoints.storage import Checkpoints
from diffusion_jax.devices.sharding import Parallel
from diffusion_jax.training.report import MetricsWriter
from diffusion_jax.training.step import Batch


class Report(Protocol):
    """Where the loop tells a person how it goes."""

    def line(self, text: str) -> None:
        """Say one thing."""
        ...

    def advance(self, step: int, **values: float) -> None:
        """Move the progress on to `step`; `values` are there on logged steps."""
        ...


class Profiler:
    """Traces the steps `first` to `last`, for TensorBoard or Perfetto; both 0 for none."""

    def __init__(self, folder: Path, first: int = 0, last: int = 0):
        self._folder, self._first, self._last, self._on = folder, first, last, False

    def before(self, step: int, state: Any) -> None:
        """Told before each step, with the state that the step before it gives."""
        if not self._on and self._first <= step <= self._last:
            jax.block_until_ready(state)
            jax.profiler.start_trace(str(self._folder))
            self._on = True
        elif step > self._last:
            self.close(state)

    def close(self, state: Any = None) -> None:
        """End the trace if one is being taken."""
        if self._on:
            jax.block_until_ready(state)
            jax.profiler.stop_trace()
            self._on = False


class LoopPlan(NamedTuple):
    """How far to go and how often to do what; 0 = never.

    max_skipped: consecutive non-finite updates after which the run stops.
    """

    steps: int
    batch_size: int
    log_every: int
    save_every: int
    sample_every: int
    max_skipped: int


class Hooks(NamedTuple):
    """What the loop calls.

    batch: this process's share of the batch of a step, on the host; asked for in order.
    metrics: None on processes that write nothing.
    sample: draws and writes a grid of `(step, averaged parameters)`, returns where it is; None if
        its third argument, asked on the way, said to stop.
    vote: a number of this process -> the largest of all processes, not waited for.
    """

    parallel: Parallel
    batch: Callable[[int], Batch]
    checkpoints: Checkpoints
    metrics: MetricsWriter | None
    sample: Callable[[int, Any, Callable[[], bool]], str | None]
    report: Report
    profiler: Profiler
    vote: Callable[[int], Any]
