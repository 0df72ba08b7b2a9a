"""`train.py`: from a configuration to a run's folder."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import jax
import numpy as np

from diffusion_jax import build, build_sampling, config, run_folder
from diffusion_jax.checks import check
from diffusion_jax.commands import cache
from diffusion_jax.commands.arguments import Parser, as_path, named, split_overrides
from diffusion_jax.commands.terminal import Training
from diffusion_jax.core.keys import Stream, stream_key
from diffusion_jax.data.batches import batch_indices
from diffusion_jax.data.dataset import Dataset, Source
from diffusion_jax.data.stream import BatchStream
from diffusion_jax.evaluation.generate import make_generate
from diffusion_jax.models.network import parameter_count
from diffusion_jax.training import devices, loop
from diffusion_jax.training.checkpoint import Checkpoints, newest_step
from diffusion_jax.training.metrics import MetricsWriter
from diffusion_jax.training.step import Batch
from diffusion_jax.visual.images import grid, labelled_grid, save_png, to_uint8

DEFAULT = config.DEFAULT.with_name("digits.py")


def main(arguments: list[str]) -> None:
    """Train, or go on training, the run that the arguments describe."""
    settings, workdir = _parse(arguments)
    check(settings)
    run_folder.check_writable(workdir)
    devices.check_batch(settings.train.batch_size, jax.device_count())
    cache.enable()
    source = build.source(settings)
    parts = build.diffusion(settings, source.spec)
    training = build.training(settings, parts)
    parallel = devices.data_parallel(
        training.make_step, settings.parallel, jax.devices(), settings.train.batch_size
    )
    folder = workdir / "checkpoints"
    done = newest_step(folder)
    if done is not None:  # a run that saved nothing has nothing to lose
        run_folder.check_same(workdir, settings, source.spec)
    if done is not None and done >= settings.train.steps:
        print(f"{workdir} is finished: {done} steps are done; nothing to do")
        return
    dataset, state, parallel = _prepare(settings, source, training, parallel)
    print(_first_line(settings, source.size, parts, state.params), flush=True)
    run = run_folder.begin(workdir, settings, source.spec, done or 0)
    with ExitStack() as stack:
        about = build.about(settings, parts)
        checkpoints = Checkpoints(folder, about, keep=settings.train.keep)
        stack.callback(checkpoints.close)
        if done is not None:
            state = checkpoints.restore(done, state)
            print(f"resuming {workdir} after step {done}", flush=True)
        metrics = MetricsWriter(workdir, int(state.step))
        stack.callback(metrics.close)
        report = Training(settings.train.steps, int(state.step))
        stack.callback(report.close)
        if dataset is None:
            batch = streamed(settings, source, int(state.step), stack)
        else:
            batch = batches(settings, dataset)
        tools = loop.Tools(
            parallel=parallel,
            batch=batch,
            learning_rate=training.rate,
            checkpoints=checkpoints,
            metrics=metrics,
            sample=_sampler(settings, parts, run),
            report=report,
        )
        loop.train(state, _plan(settings), tools)
    print(f"done: checkpoint {folder / str(settings.train.steps)}; next:")
    print(f"  python sample.py --workdir={workdir}")


def _prepare(settings, source: Source, training: build.Training, parallel: devices.Parallel):
    """Read the data, unless streamed, draw the parameters and compile the step, side by side."""
    key, size = stream_key(settings.seed, Stream.INIT), settings.train.batch_size
    images = jax.ShapeDtypeStruct((size, *source.shape), np.uint8)
    number = jax.ShapeDtypeStruct((size,), np.int32)
    with ThreadPoolExecutor() as background:
        reading = None if settings.data.stream else background.submit(source.load)
        drawing = training.init.lower(key)
        shapes = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), drawing.out_info)
        compiling = background.submit(parallel.compile, shapes, Batch(images, number, number))
        state = drawing.compile()(key)
        return reading and reading.result(), state, compiling.result()


def _parse(arguments: list[str]):
    rest, overrides = split_overrides(arguments)
    parser = Parser(
        prog="train.py", description="Train a diffusion model, or go on where it stopped."
    )
    parser.add_argument(
        "--config", type=named, metavar="FILE[:VARIANT]", help=f"default: configs/{DEFAULT.name}"
    )
    parser.add_argument("--workdir", type=as_path, help="the run's folder; default: runs/NAME")
    parser.epilog = "Any key of the config: --config.key=value, e.g. --config.train.steps=100"
    given = parser.parse_args(rest)
    if given.config is None:
        print(f"no --config given: training configs/{DEFAULT.name}", flush=True)
    settings = config.load(given.config or str(DEFAULT), overrides)
    return settings, given.workdir or Path("runs") / settings.name


def _plan(settings) -> loop.Plan:
    part = settings.train
    return loop.Plan(
        part.steps, part.batch_size, part.log_every, part.save_every, part.sample_every
    )


def _first_line(settings, size: int, parts: build.Diffusion, params) -> str:
    h, w, c = parts.data.shape
    count = jax.device_count()
    kind = jax.devices()[0].device_kind
    return (
        f"devices: {count} x {kind} ({settings.parallel}) | "
        f"parameters: {parameter_count(params):,} | "
        f"data: {settings.data.name}, {size:,} images {h}x{w}x{c} in {parts.data.levels} levels | "
        f"batch per device: {settings.train.batch_size // count}"
    )


def batches(settings, dataset: Dataset):
    """The host's side of the data: `(step) -> Batch`, a pure function of the seed and the step."""
    size, count = settings.train.batch_size, len(dataset.images)
    position = np.arange(size, dtype=np.int32)

    def batch(step: int) -> Batch:
        index = batch_indices(settings.seed, step, size, count)
        return Batch(dataset.images[index], dataset.labels[index], position)

    return batch


def streamed(settings, source: Source, first: int, stack: ExitStack):
    """What `batches` gives, read while training goes on: for steps from `first` on, in order.

    stack: ends the reading when it is closed.
    """
    size, part = settings.train.batch_size, settings.data
    stream = BatchStream(source, settings.seed, size, start_step=first, workers=part.workers)
    stack.callback(stream.close)
    position = np.arange(size, dtype=np.int32)

    def batch(step: int) -> Batch:
        return Batch(*next(stream), position)

    return batch


class _Cut(Exception):
    """A grid was given up, because the run is to stop."""


def _sampler(settings, parts: build.Diffusion, run: run_folder.Run):
    """Draw a grid: `(state, stopping) -> path or None`, compiled at its first call."""
    num, layout = settings.sample.num, devices.shardings(jax.devices())
    generate = make_generate(build_sampling.method(settings, parts), layout, num)

    def sample(state, stopping) -> str | None:
        def progress(done: float) -> None:
            if stopping():
                raise _Cut

        try:
            (drawn,) = generate(state.ema, settings.seed, [range(num)], progress)
        except _Cut:
            return None
        path = run.folder / "samples" / f"step_{int(state.step):07d}.png"
        images = to_uint8(drawn.images)
        save_png(path, grid(images) if drawn.label is None else labelled_grid(images, drawn.label))
        return str(path)

    return sample
