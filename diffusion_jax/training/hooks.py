"""The training loop's settings and callbacks."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import jax

from diffusion_jax.checkpoints.storage import Checkpoints
from diffusion_jax.devices.sharding import Parallel
from diffusion_jax.training.report import MetricsWriter
from diffusion_jax.training.step import Batch


class Report(Protocol):
    """Where the loop reports its progress to the user."""

    def line(self, text: str) -> None:
        """Print one line."""
        ...

    def warn(self, text: str) -> None:
        """Print one line that must not be missed."""
        ...

    def advance(self, step: int, **values: float) -> None:
        """Advance the progress to `step`; `values` are given on logged steps only."""
        ...


class Profiler:
    """A tracer of the steps `first` to `last`, for TensorBoard or Perfetto; both 0: no trace."""

    def __init__(self, folder: Path, first: int = 0, last: int = 0):
        self._folder, self._first, self._last, self._on = folder, first, last, False

    def before(self, step: int, state: Any) -> None:
        """Start or end the trace before `step`; `state` is the result of the step before it."""
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
    """The number of steps, and the intervals in steps at which to log, save and sample; 0 = never.

    max_skipped: consecutive non-finite updates after which the run stops.
    """

    steps: int
    batch_size: int
    log_every: int
    save_every: int
    sample_every: int
    max_skipped: int


class Hooks(NamedTuple):
    """The loop's callbacks.

    batch: `(step) -> batch`, this process's share on the host; steps are requested in order.
    metrics: None on processes that write nothing.
    sample: `(step, averaged parameters, stopping) -> path` of the grid drawn, or None if
        `stopping()`, called repeatedly while it draws, returned True.
    vote: `(number) -> largest number of all processes`, returned without waiting.
    """

    parallel: Parallel
    batch: Callable[[int], Batch]
    checkpoints: Checkpoints
    metrics: MetricsWriter | None
    sample: Callable[[int, Any, Callable[[], bool]], str | None]
    report: Report
    profiler: Profiler
    vote: Callable[[int], Any]
