"""Metrics of finished steps: logging, stop signals and divergence."""

import math
import time
from collections import deque
from typing import Any

import jax
import numpy as np

from diffusion_jax.checkpoints.storage import SavedLosses
from diffusion_jax.devices.allocator import give_back
from diffusion_jax.errors import Diverged
from diffusion_jax.processes import cluster
from diffusion_jax.training.hooks import Hooks, LoopPlan
from diffusion_jax.training.report import on_grid
from diffusion_jax.training.step import Metrics

# Metrics are read this many steps late: the device stays busy, and its queue short.
AHEAD = 2


class Mean:
    """The mean of the finite losses since the last scheduled save, across resumed sessions."""

    def __init__(self, total: float = 0.0, count: int = 0):
        self._total, self._count = total, count

    def add(self, loss: float) -> None:
        """Add one loss."""
        self._total, self._count = self._total + loss, self._count + 1

    def at_save(self, due: bool) -> SavedLosses:
        """Return what to save; a scheduled save starts a new mean, a save on stopping does not."""
        if not due or not self._count:
            return SavedLosses(None, self._total, self._count)
        mean = self._total / self._count
        self._total, self._count = 0.0, 0
        return SavedLosses(mean)


class StepHistory:
    """The steps that were sent to the device, and the metrics of those that it finished.

    Attributes:
        losses: their mean since the last scheduled save.
        stop: the number of the signal to stop, 0 if none was received.
        in_a_row: consecutive updates skipped up to the last finished step.
    """

    def __init__(self, first: int, skipped: int, plan: LoopPlan, hooks: Hooks):
        self._first, self._plan, self._hooks = first, plan, hooks
        self._under_way: deque[tuple[int, Metrics, Any]] = deque()
        self.losses = Mean(*hooks.checkpoints.losses(first))
        self._skipped = skipped
        self.stop = self.in_a_row = 0
        self.restart_clock(first)

    def add(self, step: int, metrics: Metrics, vote: Any) -> None:
        """Queue the metrics of a step that was started; read those of steps far enough behind."""
        if isinstance(vote, int):
            self.stop = max(self.stop, vote)
        for scalar in jax.tree.leaves(metrics._replace(losses=None)):
            scalar.copy_to_host_async()
        self._under_way.append((step, metrics, vote))
        while len(self._under_way) > AHEAD:
            self._read(*self._under_way.popleft())

    def drain(self) -> None:
        """Wait for all steps in progress, and retry metrics that could not be written before."""
        while self._under_way:
            self._read(*self._under_way.popleft())
        if self._hooks.metrics is not None:
            self._hooks.metrics.flush()

    def restart_clock(self, step: int) -> None:
        """Restart the speed measurement at `step`, to exclude saving and sampling."""
        self._timed, self._time = step, time.perf_counter()

    def _rate(self, step: int) -> float:
        rate = (step - self._timed) / max(time.perf_counter() - self._time, 1e-9)
        self.restart_clock(step)
        return rate

    def _read(self, step: int, placed: Metrics, vote: Any) -> None:
        metrics = self._hooks.parallel.read(placed._replace(losses=None))
        self.stop = max(self.stop, int(vote))
        cluster.note(step)
        loss, skipped = float(metrics.loss), int(metrics.skipped.in_all)
        self.in_a_row = int(metrics.skipped.in_a_row)
        if self.in_a_row >= self._plan.max_skipped:
            self._diverged(step, metrics, self._hooks.parallel.read(placed.losses))
        if math.isfinite(loss):
            self.losses.add(loss)
        logged = on_grid(step, self._plan.log_every) or step == self._plan.steps
        if logged or step == self._first + 1:
            self._log(step, metrics, logged)
            if step == self._first + 1:
                give_back()
        else:
            self._hooks.report.advance(step)
        if skipped > self._skipped:
            what = f"loss {loss:g}, gradient norm {float(metrics.grad_norm):g}"
            self._hooks.report.warn(f"step {step}: update skipped ({what}); {skipped} so far")
        self._skipped = skipped

    def _log(self, step: int, metrics: Metrics, written: bool) -> None:
        values = {
            "loss": float(metrics.loss),
            "grad_norm": float(metrics.grad_norm),
            "learning_rate": float(metrics.learning_rate),
            "skipped": int(metrics.skipped.in_all),
            "images_per_second": self._rate(step) * self._plan.batch_size,
        }
        self._hooks.report.advance(step, **values)
        if written and self._hooks.metrics is not None:
            failed = self._hooks.metrics.write(step, **values)
            if failed:
                self._hooks.report.warn(f"step {step}: metrics not written yet: {failed}")

    def _diverged(self, step: int, metrics: Metrics, losses: Any) -> None:
        bad = ~np.isfinite(losses.each)
        where = f", at t {losses.t[bad].min()} to {losses.t[bad].max()}" if bad.any() else ""
        table = "losses per t could not be written"
        if self._hooks.metrics is not None:
            each = [float(loss) if math.isfinite(loss) else None for loss in losses.each]
            try:
                path = self._hooks.metrics.keep_batch(step, {"t": losses.t.tolist(), "loss": each})
                table = f"losses per t in {path}"
            except OSError as error:
                table = f"{table} ({error.strerror})"
        raise Diverged(
            f"training diverged at step {step}: {self.in_a_row} updates in a row were not finite "
            f"(loss {float(metrics.loss):g}, gradient norm {float(metrics.grad_norm):g}; "
            f"{bad.sum()} of {len(bad)} losses are not finite{where}); {table}"
        )
