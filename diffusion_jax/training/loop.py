"""The training loop: steps, logs, saves and samples, in the order of the steps."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax

from diffusion_jax.checkpoints.storage import Outcome
from diffusion_jax.errors import Diverged, Stopped, Unsaved, UserError
from diffusion_jax.processes import cluster
from diffusion_jax.processes.signals import stop_signals
from diffusion_jax.training.history import StepHistory
from diffusion_jax.training.hooks import Hooks, LoopPlan
from diffusion_jax.training.state import TrainState


def train(state: TrainState, plan: LoopPlan, hooks: Hooks) -> TrainState:
    """Train from the state's step to the plan's last step, which is always saved.

    After a failed save, the next save tries again. An update that is not finite is skipped.

    Raises:
        Diverged: too many updates in a row were skipped.
        UserError: a batch could not be read; the state is on disk.
        Stopped: SIGTERM or SIGINT was received; the step was finished and the state is on disk.
        Unsaved: the last state, or with several processes any state, could not be saved.
    """
    first = int(state.step)
    history, due = StepHistory(first, int(state.skipped.in_all), plan, hooks), False
    placed = hooks.parallel.place_state(state)
    del state  # under pmap it would stay in memory beside its copies
    batch = hooks.parallel.place_batch(hooks.batch(first))
    with stop_signals() as received, _saved_on_leaving(hooks):
        unreadable = None
        for step in range(first + 1, plan.steps + 1):
            hooks.profiler.before(step, placed)
            placed, metrics = hooks.parallel.step(placed, batch)
            history.add(step, metrics, hooks.vote(received[0] if received else 0))
            last, stop = step == plan.steps, history.stop
            if not last:  # the next batch is read while the device computes
                try:
                    batch = hooks.parallel.place_batch(hooks.batch(step))
                except UserError as error:
                    if jax.process_count() > 1:  # the others go on, and would wait for this save
                        raise
                    unreadable = error
            due = due or _due(step, plan.save_every)
            ends = last or stop or unreadable is not None
            if ends or due:
                history.drain()
                # A scheduled save waits for a finite update; the last save cannot wait.
                if ends or not history.in_a_row:
                    single = hooks.parallel.single(placed)
                    _after_save(hooks.checkpoints.save(single, history.losses.at_save(due)), hooks)
                    due = False
                    history.restart_clock(step)
            if unreadable is not None:
                _finish(step, hooks)
                raise UserError(
                    f"{unreadable}; step {step} is saved; if you change the images, resume with "
                    "--config.data.changed=allow"
                )
            if stop and not last:
                _finish(step, hooks)
                name = signal.Signals(stop).name
                raise Stopped(
                    f"stopped by {name} after step {step} (saved); the same command resumes", stop
                )
            if _due(step, plan.sample_every):
                history.drain()
                _sample(step, placed.ema, hooks, received)
                history.restart_clock(step)
            if not last:  # `_finish` handles the last save
                _after_save(hooks.checkpoints.finished(), hooks)
        _finish(plan.steps, hooks)
    return hooks.parallel.single(placed)


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def _sample(step: int, ema: Any, hooks: Hooks, received: list[int]) -> None:
    try:
        grid = hooks.sample(step, hooks.parallel.gather(ema), lambda: bool(received))
    except OSError as error:
        grid = f"could not write the grid of samples: {error.strerror}"
    if grid:
        hooks.report.line(f"step {step}: {grid}")


def _finish(step: int, hooks: Hooks) -> None:
    """Wait for the last save; raise `Unsaved` if the last state is not on disk."""
    outcome = hooks.checkpoints.wait()
    _after_save(outcome, hooks)
    lost = hooks.metrics.flush() if hooks.metrics is not None else None
    if lost:
        hooks.report.warn(f"the last lines of metrics.jsonl could not be written: {lost}")
    error = cluster.on_first_process(lambda: outcome.error if outcome else None)
    if error:
        newest = cluster.on_first_process(hooks.checkpoints.latest)
        kept = "no checkpoint is intact" if newest is None else f"checkpoint {newest} is intact"
        raise Unsaved(
            f"the state after step {step} could not be saved: {error}; {kept}; "
            "fix the cause and run the same command again"
        )


def _after_save(outcome: Outcome | None, hooks: Hooks) -> None:
    """Report a finished save; with several processes, a failed one ends the run."""
    if outcome is None:
        return
    _report(outcome, hooks)
    if outcome.error and jax.process_count() > 1:
        raise Unsaved(
            f"the state after step {outcome.step} could not be saved: {outcome.error}; "
            "fix the cause and run the same command again"
        )


def _report(outcome: Outcome, hooks: Hooks) -> None:
    if outcome.error is None:
        hooks.report.line(f"step {outcome.step}: saved")
    else:
        hooks.report.warn(f"step {outcome.step}: NOT saved: {outcome.error}")


@contextmanager
def _saved_on_leaving(hooks: Hooks) -> Iterator[None]:
    """Wait for a save in progress and report it, however the loop ends."""
    try:
        yield
    except Diverged as error:
        _after_save(hooks.checkpoints.wait(), hooks)
        newest = cluster.on_first_process(hooks.checkpoints.latest)
        kept = "nothing was saved" if newest is None else f"the last checkpoint is of step {newest}"
        raise Diverged(f"{error}; {kept}; try a lower config.optimizer.learning_rate") from None
    finally:
        _after_save(hooks.checkpoints.wait(), hooks)
