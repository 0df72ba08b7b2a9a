"""Train a run, in a folder or in memory, and return it."""

import signal
import time
from pathlib import Path
from typing import Any

from diffusion_jax.configuration import Config
from diffusion_jax.data.dataset import Source
from diffusion_jax.errors import Stopped
from diffusion_jax.paths import as_path
from diffusion_jax.processes import cluster
from diffusion_jax.processes.signals import stop_signals
from diffusion_jax.run.load import load
from diffusion_jax.run.progress import TrainingProgress, output
from diffusion_jax.run.run import Run
from diffusion_jax.run.steps import State, configured, started
from diffusion_jax.run.training import train_in_folder
from diffusion_jax.training.report import on_grid


def train(
    config: str | Config,
    folder: str | Path | None = None,
    *,
    images: Any = None,
    labels: Any = None,
    levels: int | None = None,
    init: str = "",
    progress: bool = False,
) -> Run:
    """Train a model and return it.

    Ctrl-C ends training after the current step and returns the run so far. Losses and parameters
    are those of `train.py`, bit for bit on the same devices.

    Args:
        config: a configuration, or the name of one.
        folder: where the run is saved; a run that is there already is resumed. None trains in
            memory and writes nothing.
        images: uint8 `[n, h, w, c]` or `[n, h, w]` to train on; by default the config's data.
        labels: integers `[n]` from 0, if the images have classes.
        levels: how many values a pixel of `images` can take; 256 by default.
        init: `RUN` or `RUN:STEP` whose weights a new run begins with.
        progress: show the progress.

    Raises:
        UserError: an argument is wrong.
        Diverged: too many updates in a row were not finite.
        Unsaved: the last state could not be saved.
    """
    given, own = configured(config, images, labels, levels)
    if folder is None:
        return _in_memory(given, own, init, progress)
    cluster.check_joined()
    try:
        train_in_folder(given, as_path(folder), own, progress, init=init)
    except Stopped as stop:
        if stop.exit_code != 128 + signal.SIGINT:
            raise
        output(progress)[0](str(stop))
    return load(folder, progress=progress)


def _in_memory(config: Config, own: Source | None, init: str, progress: bool) -> Run:
    display, state, began = None, None, time.perf_counter()
    with stop_signals() as received:
        for state, metrics in started(config, own, init):
            part = state.config.train
            display = display or TrainingProgress(part.steps, 0, quiet=not progress)
            if progress and on_grid(state.step, part.log_every):
                rate = state.step * part.batch_size / (time.perf_counter() - began)
                display.advance(state.step, loss=float(metrics.loss), images_per_second=rate)
            if received:
                break
    if display is not None:
        display.close()
    return _finished(state, received)


def _finished(state: State | None, received: list[int]) -> Run:
    assert state is not None  # a configuration has at least one step
    if signal.SIGTERM in received:
        raise Stopped(f"stopped by SIGTERM after step {state.step}; nothing was saved", received[0])
    return state.run()
