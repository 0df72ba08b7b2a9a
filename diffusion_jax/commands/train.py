"""`train.py`: from a configuration to a run's folder."""

import time
from contextlib import ExitStack
from pathlib import Path

import jax

from diffusion_jax import build, run_folder
from diffusion_jax.checkpoints import step_folders
from diffusion_jax.checkpoints.storage import Checkpoints
from diffusion_jax.commands.arguments import Parser, as_path, integer, named, split_overrides
from diffusion_jax.commands.pace import fitting_steps, measured_pace
from diffusion_jax.commands.prepare import read_and_compile, serve
from diffusion_jax.commands.progress_grid import make_draw
from diffusion_jax.commands.terminal import TrainingProgress, warn
from diffusion_jax.commands.verify import verify
from diffusion_jax.config import CONFIGS, load, stretched
from diffusion_jax.config.check import check, profiled_steps
from diffusion_jax.config.reference import listing
from diffusion_jax.data.dataset import Source
from diffusion_jax.devices import sharding
from diffusion_jax.devices.compiler import enable_cache
from diffusion_jax.errors import UserError
from diffusion_jax.models.network import parameter_count
from diffusion_jax.processes import cluster
from diffusion_jax.training import loop
from diffusion_jax.training.hooks import Hooks, LoopPlan, Profiler
from diffusion_jax.training.report import MetricsWriter, events_available

DIGITS = CONFIGS / "digits.py"


def main(arguments: list[str]) -> None:
    """Train or resume the run that the arguments describe."""
    began = time.perf_counter()
    given, overrides = _parse(arguments)
    if given.keys is not None:
        return print(listing(given.keys))
    if given.verify:
        if given.workdir is None:
            raise UserError("--verify needs the run's folder; add --workdir=RUN")
        return verify(given.workdir)
    config, workdir = _configured(given, overrides)
    check(config)
    run_folder.check_writable(workdir)
    cluster.join(given.coordinator, given.num_processes, given.process_id)
    size, pieces = config.train.batch_size, config.train.accumulate
    sharding.check_batch(size, jax.device_count(), pieces)
    enable_cache()
    _train(config, workdir, began)


def _train(config, workdir: Path, began: float) -> None:
    source = build.source(config)
    diffusion = build.diffusion(config, source.spec)
    folder = workdir / "checkpoints"
    with ExitStack() as stack:
        done = cluster.on_first_process(lambda: _claim(workdir, config, source, stack))
        given, paced = config, None
        if config.train.minutes:
            paced, source = _paced(config, source, diffusion, workdir, done, began)
            config = stretched(config, paced)
        if done is not None and done >= config.train.steps:
            _say(f"{workdir} is finished: {done} steps are done; nothing to do")
            return
        training = build.training(config, diffusion)
        dataset, draw, parallel, _ = read_and_compile(config, source, training, fresh=done is None)
        _say(_first_line(config, source.size, diffusion, parallel.state.params))
        cluster.on_first_process(lambda: _begin(workdir, given, source, done, paced))
        checkpoints = Checkpoints(folder, build.about(config, diffusion), _keep(config), warn)
        stack.callback(checkpoints.close)
        if done is not None:
            _say(f"resuming {workdir} after step {done}")
        first = done or 0
        batch = serve(config, source, dataset, first, stack)
        hooks = make_hooks(config, workdir, diffusion, parallel, batch, checkpoints, first, stack)
        # No reference to the state is kept here, because the loop donates it.
        loop.train(
            draw() if done is None else checkpoints.restore(done, parallel.state),
            plan(config),
            hooks,
        )
    _say(f"done: checkpoint {folder / str(config.train.steps)}; next:")
    _say(f"  python sample.py --workdir={workdir}")


def _paced(
    config,
    source: Source,
    diffusion: build.Diffusion,
    workdir: Path,
    done: int | None,
    began: float,
) -> tuple[int, Source]:
    """Find the number of steps that `train.minutes` allows; a resumed run keeps its number.

    Returns:
        The number of steps, and the source, whose images may be in memory by now.
    """
    if done is not None:
        return cluster.on_first_process(lambda: run_folder.paced_steps(workdir)), source
    pace, source = measured_pace(config, source, diffusion)
    steps = cluster.on_first_process(lambda: fitting_steps(config.train.minutes, pace, began))
    _say(f"{config.train.minutes:g} minutes: {steps:,} steps at {pace.step_seconds:.3g} s per step")
    return steps, source


def _say(line: str) -> None:
    if cluster.is_first():
        print(line, flush=True)


def _claim(workdir: Path, config, source: Source, stack: ExitStack) -> int | None:
    """Lock the folder; return the step to resume after, None if the run has saved nothing."""
    stack.callback(run_folder.lock(workdir).close)
    folder = workdir / "checkpoints"
    steps = step_folders.complete(folder)
    if not steps:
        return None
    run_folder.check_same(workdir, config, source.spec, source.size)
    done = step_folders.newest_good(folder, warn)
    if done is None:
        raise UserError(
            f"every checkpoint in {folder} is damaged ({', '.join(map(str, steps))}); "
            "restore one, or choose another --workdir"
        )
    return done


def _begin(workdir: Path, config, source: Source, done: int | None, paced: int | None) -> None:
    step_folders.set_aside(workdir / "checkpoints", done)
    run_folder.begin(workdir, config, source.spec, source.size, done or 0, paced)


def _parse(arguments: list[str]):
    rest, overrides = split_overrides(arguments)
    parser = Parser(
        prog="train.py", description="Train a diffusion model, or resume a stopped run."
    )
    parser.add_argument(
        "--config", type=named, metavar="FILE[:VARIANT]", help=f"default: configs/{DIGITS.name}"
    )
    parser.add_argument("--workdir", type=as_path, help="the run's folder; default: runs/NAME")
    parser.add_argument(
        "--verify", action="store_true", help="only verify the checksums of the run's checkpoints"
    )
    parser.add_argument(
        "--keys", nargs="?", const="", metavar="GROUP", help="only list the config's keys"
    )
    several = parser.add_argument_group("several processes, if JAX does not detect them itself")
    several.add_argument("--coordinator", metavar="HOST:PORT", help="address of process 0")
    several.add_argument("--num_processes", type=integer)
    several.add_argument("--process_id", type=integer, help="0 to num_processes - 1")
    parser.epilog = "Set any config key with --config.key=value, e.g. --config.train.steps=100"
    return parser.parse_args(rest), overrides


def _configured(given, overrides):
    if given.config is None:
        print(f"no --config given: training configs/{DIGITS.name}", flush=True)
    config = load(given.config or str(DIGITS), overrides)
    return config, given.workdir or Path("runs") / config.name


def plan(config) -> LoopPlan:
    """Return the loop's number of steps and its intervals."""
    part = config.train
    every = part.log_every, part.save_every, part.sample_every
    return LoopPlan(part.steps, part.batch_size, *every, part.max_skipped)


def _keep(config) -> step_folders.Keep:
    part = config.train
    return step_folders.Keep(part.keep, part.keep_every, part.keep_best)


def make_hooks(config, workdir, diffusion, parallel, batch, checkpoints, done, stack: ExitStack):
    """Make the loop's callbacks; `stack` closes those that must be closed."""
    first = cluster.is_first()
    metrics = None
    if first:
        if not events_available():
            warn("no TensorBoard events: package 'tensorboardX' is missing; pip install it")
        metrics = MetricsWriter(workdir, done, config.train.log_every)
        stack.callback(metrics.close)
    report = TrainingProgress(config.train.steps, done, quiet=not first)
    stack.callback(report.close)
    profiler = Profiler(workdir / "profile", *(profiled_steps(config) if first else (0, 0)))
    stack.callback(profiler.close)
    draw = make_draw(config, diffusion, workdir / "samples")
    return Hooks(
        parallel=parallel,
        batch=batch,
        checkpoints=checkpoints,
        metrics=metrics,
        sample=draw if first else lambda *_: None,
        report=report,
        profiler=profiler,
        vote=sharding.voting(jax.devices()),
    )


def _first_line(config, size: int, diffusion: build.Diffusion, params) -> str:
    h, w, c = diffusion.data.shape
    count, processes = jax.device_count(), jax.process_count()
    kind = jax.devices()[0].device_kind
    return (
        f"devices: {count} x {kind} ({config.parallel}"
        f"{f', {processes} processes' if processes > 1 else ''}) | "
        f"parameters: {parameter_count(params):,} | "
        f"data: {config.data.name}, {size:,} images {h}x{w}x{c} "
        f"in {diffusion.data.levels} levels | "
        f"batch per device: {config.train.batch_size // count}"
    )
