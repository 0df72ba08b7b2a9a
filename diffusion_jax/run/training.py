"""Train a run in its folder, or resume it: data, compiled step, checkpoints, loop."""

import time
from contextlib import ExitStack
from pathlib import Path

import jax

from diffusion_jax import build
from diffusion_jax.checkpoints import step_folders
from diffusion_jax.checkpoints.storage import Checkpoints
from diffusion_jax.configuration import Config, stretched
from diffusion_jax.configuration.check import profiled_steps
from diffusion_jax.data.dataset import Source
from diffusion_jax.devices import sharding
from diffusion_jax.errors import UserError, counted
from diffusion_jax.processes import cluster
from diffusion_jax.run import folder, initial, record
from diffusion_jax.run.announcements import (
    class_lines,
    no_test_split,
    prepared_line,
    rate_change,
    run_line,
    warmup_change,
)
from diffusion_jax.run.memory import check_step_fits, needed_bytes
from diffusion_jax.run.pace import fitting_steps, measured_pace
from diffusion_jax.run.prepare import Prepared, open_data, read_and_compile, serve
from diffusion_jax.run.progress import Say, TrainingProgress, output
from diffusion_jax.run.progress_grid import make_draw
from diffusion_jax.samplers.batch_size import free_bytes
from diffusion_jax.training import loop
from diffusion_jax.training.hooks import Hooks, LoopPlan, Profiler
from diffusion_jax.training.report import MetricsWriter, events_available


def train_in_folder(
    config: Config,
    workdir: Path,
    given_source: Source | None = None,
    progress: bool = False,
    began: float | None = None,
    init: str = "",
) -> None:
    """Train or resume the run in `workdir`, until its last step is on disk.

    With several processes, `processes.cluster.join` comes first.

    Args:
        given_source: the images, by default those that the config names.
        progress: print what is going on.
        began: when the command began, by `time.perf_counter`; `train.minutes` counts from there.
        init: `RUN` or `RUN:STEP` whose weights a new run begins with.

    Raises:
        UserError, Diverged, Stopped, Unsaved: see `training.loop.train`.
    """
    say, warn = output(progress)
    folder.check_writable(workdir)
    warmup = config.optimizer.warmup_steps
    config = folder.resumed(workdir, config)
    source, diffusion = open_data(config, given_source, warn)
    with ExitStack() as stack:
        done = cluster.on_first_process(lambda: _claim(workdir, config, source, init, stack, warn))
        weights = None
        if done is None:
            if line := warmup_change(warmup, config):
                warn(line)
            if given_source is None and (line := no_test_split(config, source)):
                say(line)
            init = init or initial.recorded(workdir)  # of a run that ended before its first save
            weights = initial.weights(init, config, diffusion, warn) if init else None
        given, paced = config, None
        if config.train.minutes:
            began = time.perf_counter() if began is None else began
            paced, source = _paced(config, source, diffusion, workdir, done, began, say)
            config = stretched(config, paced)
        if done is not None and done >= config.train.steps:
            say(f"{workdir} is finished: {done} steps are done; nothing to do")
            if done > config.train.steps and not progress:
                warn(f"{workdir} has {done} steps already, more than the {config.train.steps}")
            return
        prepared = _prepared(config, source, diffusion, done is None, say, warn)
        about, first = build.about(config, diffusion), done or 0

        def begin() -> None:
            step_folders.set_aside(workdir / "checkpoints", done)
            origin = weights.name if weights else ""
            folder.begin(workdir, given, source, first, paced, origin, warmup)

        cluster.on_first_process(begin)
        checkpoints = Checkpoints(workdir / "checkpoints", about, _keep(config), warn)
        stack.callback(checkpoints.close)
        if done is not None:
            say(f"resuming {workdir} after step {done}")
        elif weights:
            say("\n".join([f"beginning with the weights of {weights.name}", *weights.notes]))
        hooks = Hooks(
            parallel=prepared.parallel,
            batch=serve(config, source, prepared.dataset, first, stack),
            checkpoints=checkpoints,
            vote=sharding.voting(jax.devices()),
            **_display(config, workdir, diffusion, first, progress, warn, stack),
        )
        # No reference to the state is kept here, because the loop donates it.
        loop.train(
            prepared.begin(weights)
            if done is None
            else checkpoints.restore(done, prepared.parallel.state),
            plan(config),
            hooks,
        )
    say(f"done: checkpoint {workdir / 'checkpoints' / str(config.train.steps)}")


def _prepared(
    config: Config, source: Source, diffusion: build.Diffusion, fresh: bool, say: Say, warn: Say
) -> Prepared:
    """Read the data and compile the step, and say what is going on."""
    say(run_line(config, source.size, diffusion))
    reading = "" if config.data.stream else f"reading {counted(source.size, 'image')} and "
    say(f"{reading}compiling the training step ...")
    prepared = read_and_compile(config, source, build.training(config, diffusion), fresh)
    needed, free = needed_bytes(prepared.parallel.step), free_bytes(jax.local_devices())
    check_step_fits(config, needed, free)
    say(prepared_line(prepared, needed, free))
    shown, missing = class_lines(config, source, prepared.dataset)
    if shown:
        say(shown)
    if missing:
        warn(missing)
    return prepared


def _paced(
    config: Config,
    source: Source,
    diffusion: build.Diffusion,
    workdir: Path,
    done: int | None,
    began: float,
    say: Say,
) -> tuple[int, Source]:
    """Find the number of steps that `train.minutes` allows; a resumed run keeps its number.

    Returns:
        The number of steps, and the source, whose images may be in memory by now.
    """
    if done is not None:
        return cluster.on_first_process(lambda: record.paced_steps(workdir)), source
    pace, source = measured_pace(config, source, diffusion)
    minutes = config.train.minutes
    steps = cluster.on_first_process(lambda: fitting_steps(minutes, pace, began))
    say(f"{minutes:g} minutes: {steps:,} steps at {pace.step_seconds:.3g} s per step")
    return steps, source


def _claim(
    workdir: Path, config: Config, source: Source, init: str, stack: ExitStack, warn: Say
) -> int | None:
    """Lock the folder; return the step to resume after, None if the run has saved nothing."""
    stack.callback(folder.lock(workdir).close)
    saved = workdir / "checkpoints"
    steps = step_folders.complete(saved)
    if not steps:
        return None
    for line in folder.check_same(workdir, config, source):
        warn(line)
    if init:
        initial.check_same(workdir, init)
    done = step_folders.newest_good(saved, warn)
    if done is None:
        raise UserError(
            f"every checkpoint in {saved} is damaged ({', '.join(map(str, steps))}); "
            "restore one, or choose another --workdir"
        )
    before = record.read(workdir).config
    if not config.train.minutes and (jump := rate_change(before, config, done)):
        warn(jump)
    return done


def plan(config: Config) -> LoopPlan:
    """Return the loop's number of steps and its intervals."""
    part = config.train
    every = part.log_every, part.save_every, part.sample_every
    return LoopPlan(part.steps, part.batch_size, *every, part.max_skipped)


def _keep(config: Config) -> step_folders.Keep:
    part = config.train
    return step_folders.Keep(part.keep, part.keep_every, part.keep_best)


def _display(
    config: Config,
    workdir: Path,
    diffusion: build.Diffusion,
    done: int,
    progress: bool,
    warn: Say,
    stack: ExitStack,
) -> dict:
    """Make the hooks that show and record the run; `stack` closes those that must be closed."""
    first = cluster.is_first()
    metrics = None
    if first:
        if not events_available():
            warn("no TensorBoard events: package 'tensorboardX' is missing; pip install it")
        metrics = MetricsWriter(workdir, done, config.train.log_every)
        stack.callback(metrics.close)
    report = TrainingProgress(config.train.steps, done, quiet=not (first and progress), warn=warn)
    stack.callback(report.close)
    profiler = Profiler(workdir / "profile", *(profiled_steps(config) if first else (0, 0)))
    stack.callback(profiler.close)
    draw = make_draw(config, diffusion, workdir / "samples")
    return {
        "metrics": metrics,
        "sample": draw if first else lambda *_: None,
        "report": report,
        "profiler": profiler,
    }
