"""What the training loop is told and what it calls."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from diffusion_jax.checkpoints.storage import Checkpoints
from diffusion_jax.devices.sharding import Parallel
from diffusion_jax.training.profiler import Profiler
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


class Plan(NamedTuple):
    """How far to go and how often to do what; 0 = never.

    max_skipped: after so many updates in a row that were not finite the run stops.
    """

    steps: int
    batch_size: int
    log_every: int
    save_every: int
    sample_every: int
    max_skipped: int


class Tools(NamedTuple):
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
