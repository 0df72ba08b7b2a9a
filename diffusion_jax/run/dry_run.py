"""What a training run would take: parameters, memory, time, disk; nothing is written."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import jax

from diffusion_jax import build
from diffusion_jax.checkpoints import step_folders
from diffusion_jax.configuration import Config
from diffusion_jax.data.dataset import Source
from diffusion_jax.errors import counted
from diffusion_jax.models.network import parameter_count
from diffusion_jax.run import folder, initial
from diffusion_jax.run.announcements import no_test_split, warmup_change
from diffusion_jax.run.memory import MIB, check_step_fits, needed_bytes
from diffusion_jax.run.pace import seconds_per_step
from diffusion_jax.run.prepare import open_data, read_and_compile
from diffusion_jax.samplers.batch_size import free_bytes


def dry_run(config: Config, workdir: Path, init: str = "") -> Iterator[str]:
    """Check what training checks, time the compiled step, and yield a run's cost line by line.

    Raises:
        UserError: training would refuse the config or the folder, or a step does not fit into
            memory.
    """
    folder.check_writable(workdir)
    given, notes = config.optimizer.warmup_steps, []
    config = folder.resumed(workdir, config)
    source, diffusion = open_data(config, None, notes.append)
    if step_folders.complete(workdir / "checkpoints"):
        notes += folder.check_same(workdir, config, source)
    training = build.training(config, diffusion)
    yield _data(config, source)
    yield from filter(None, [*notes, warmup_change(given, config), no_test_split(config, source)])
    yield _parameters(diffusion)
    if init:
        weights = initial.weights(init, config, diffusion, notes.append)
        yield "\n".join([f"begins with the weights of {weights.name}", *weights.notes])
    prepared = read_and_compile(config, source, training, fresh=True)
    needed = needed_bytes(prepared.parallel.step)
    check_step_fits(config, needed, free_bytes(jax.local_devices()))
    yield f"compiled in {prepared.compile_seconds:.1f} s"
    yield _step(prepared.parallel.step, needed)
    seconds = seconds_per_step(config, source, prepared)
    state = jax.tree.leaves(prepared.parallel.state)
    yield f"checkpoint: {sum(a.size * a.dtype.itemsize for a in state) / MIB:.1f} MiB on disk"
    yield _time(config, workdir, seconds)


def _data(config: Config, source: Source) -> str:
    (h, w, c), size = source.shape, config.train.batch_size
    return (
        f"data: {config.data.name}, {counted(source.size, 'image')} {h}x{w}x{c} in {source.levels} "
        f"levels, {counted(source.size // size or 1, 'batch')} of {size}"
    )


def _parameters(diffusion: build.Diffusion) -> str:
    shapes = diffusion.shapes
    lines = [f"parameters: {parameter_count(shapes):,}"]
    lines += [f"  {name:<24} {parameter_count(part):>12,}" for name, part in shapes.items()]
    return "\n".join(lines)


def _step(program: Any, needed: int) -> str:
    cost = program.cost_analysis() or {}
    cost = cost[0] if isinstance(cost, list) else cost
    flops = f"{cost['flops'] / 1e9:,.1f} GFLOP, " if cost.get("flops", 0) > 0 else ""
    return f"step: {flops}{needed / MIB:,.0f} MiB per device"


def _time(config: Config, workdir: Path, seconds: float) -> str:
    rate = f"{seconds:.3g} s per step, {config.train.batch_size / seconds:,.0f} images/s"
    if config.train.minutes:
        steps = int(60.0 * config.train.minutes / seconds)
        return f"time: {rate}; {config.train.minutes:g} minutes are up to {steps:,} steps"
    done = max(step_folders.complete(workdir / "checkpoints"), default=0)
    left = max(config.train.steps - done, 0)
    after = f" after the {done:,} that are done" if done else ""
    span = timedelta(seconds=round(seconds * left))
    ends = (datetime.now() + span).strftime("%Y-%m-%d %H:%M")
    return f"time: {rate}; {left:,} steps{after} take {span}, until {ends} if started now"
