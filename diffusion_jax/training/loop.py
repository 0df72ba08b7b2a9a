"""The training loop: steps, logs, saves and samples, in the order of the steps."""

import math
import signal
import time
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

from diffusion_jax.errors import Diverged, Stopped
from diffusion_jax.training.checkpoint import Checkpoints
from diffusion_jax.training.devices import Parallel
from diffusion_jax.training.metrics import MetricsWriter
from diffusion_jax.training.state import TrainState
from diffusion_jax.training.step import Batch, Metrics


class Report(Protocol):
    """Where the loop tells a person how it goes."""

    def line(self, text: str) -> None:
        """Say one thing."""
        ...

    def advance(self, step: int, **values: float) -> None:
        """Move the progress on to `step`; `values` are there on logged steps."""
        ...


class Plan(NamedTuple):
    """How far to go and how often to do what; 0 = never."""

    steps: int
    batch_size: int
    log_every: int
    save_every: int
    sample_every: int


class Tools(NamedTuple):
    """What the loop calls.

    batch: the whole batch of a step, on the host; a pure function of the step.
    learning_rate: of a step.
    sample: draws and writes a grid, returns where it is; None if its second argument, asked on the
        way, said to stop.
    """

    parallel: Parallel
    batch: Callable[[int], Batch]
    learning_rate: Callable[[int], Any]
    checkpoints: Checkpoints
    metrics: MetricsWriter
    sample: Callable[[TrainState, Callable[[], bool]], str | None]
    report: Report


def train(state: TrainState, plan: Plan, tools: Tools) -> TrainState:
    """Go from the state's step to the plan's last; the last step is always saved.

    Raises:
        Diverged: loss or gradient are not finite at a logged or saved step; nothing is saved then.
        Stopped: SIGTERM or SIGINT came; the step was finished and the state is on disk.
    """
    first = int(state.step)
    placed = tools.parallel.place_state(state)
    batch = tools.parallel.place_batch(tools.batch(first))
    clock = _Clock(first)
    with _stop_signals() as received:
        for step in range(first + 1, plan.steps + 1):
            placed, metrics = tools.parallel.step(placed, batch)
            # The device computes by now: the next batch is read in its shadow.
            batch = tools.parallel.place_batch(tools.batch(step))
            last, stop = step == plan.steps, bool(received)
            if step == first + 1 or last or _due(step, plan.log_every):
                _log(step, metrics, plan, tools, clock)
            else:
                tools.report.advance(step)
            if last or stop or _due(step, plan.save_every):
                _save(step, placed, metrics, tools)
                clock.restart(step)
            if stop:
                _finish_save(tools)
                name = signal.Signals(received[0]).name
                raise Stopped(f"stopped by {name} after step {step}, saved", received[0])
            if _due(step, plan.sample_every):
                grid = tools.sample(tools.parallel.single(placed), lambda: bool(received))
                if grid:
                    tools.report.line(f"step {step}: {grid}")
                clock.restart(step)
        _finish_save(tools)
    return tools.parallel.single(placed)


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


class _Clock:
    """Steps per second, saving and sampling left out; the first count includes compiling."""

    def __init__(self, step: int):
        self.restart(step)

    def restart(self, step: int) -> None:
        self._step, self._time = step, time.perf_counter()

    def rate(self, step: int) -> float:
        rate = (step - self._step) / max(time.perf_counter() - self._time, 1e-9)
        self.restart(step)
        return rate


def _log(step: int, placed: Metrics, plan: Plan, tools: Tools, clock: _Clock) -> None:
    loss, grad_norm = _finite(step, placed, tools)
    values = {
        "loss": loss,
        "grad_norm": grad_norm,
        "learning_rate": float(tools.learning_rate(step - 1)),
        "images_per_second": clock.rate(step) * plan.batch_size,
    }
    tools.metrics.write(step, **values)
    tools.report.advance(step, **values)
    _say_saved(tools.checkpoints.finished(), tools)


def _finite(step: int, placed: Metrics, tools: Tools) -> tuple[float, float]:
    loss, grad_norm = (float(value) for value in tools.parallel.single(placed))
    if math.isfinite(loss) and math.isfinite(grad_norm):
        return loss, grad_norm
    _finish_save(tools)
    last = tools.checkpoints.latest()
    kept = f"the last checkpoint is of step {last}" if last is not None else "nothing was saved"
    raise Diverged(
        f"training diverged at step {step}: loss {loss:g}, gradient norm {grad_norm:g}; {kept}; "
        "try a lower config.optimizer.learning_rate"
    )


def _save(step: int, placed: TrainState, metrics: Metrics, tools: Tools) -> None:
    _finite(step, metrics, tools)
    finished = tools.checkpoints.save(tools.parallel.single(placed))
    _say_saved(finished, tools)


def _finish_save(tools: Tools) -> None:
    _say_saved(tools.checkpoints.wait(), tools)


def _say_saved(step: int | None, tools: Tools) -> None:
    if step is not None:
        tools.report.line(f"step {step}: saved")


@contextmanager
def _stop_signals():
    """Collect SIGTERM and SIGINT instead of dying of them; a second one is not collected."""
    received: list[int] = []
    previous = {}

    def note(number, frame):
        received.append(number)
        for each, handler in previous.items():
            signal.signal(each, handler)

    for number in (signal.SIGTERM, signal.SIGINT):
        previous[number] = signal.signal(number, note)
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
