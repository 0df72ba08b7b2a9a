"""The smallest run that is still a real one: the digits and a network of a few thousand weights."""

import contextlib
import importlib
import io
import subprocess
import sys
from pathlib import Path
from unittest import mock

import jax
import numpy as np

from diffusion_jax import __main__ as program
from diffusion_jax import build, command_line, configuration
from diffusion_jax.core.keys import Stream, stream_key
from diffusion_jax.data.batches import batch_indices
from diffusion_jax.models.packing import unpack_on_host
from diffusion_jax.training.step import Batch

ROOT = Path(__file__).parent.parent
DIGITS = ROOT / "configs" / "digits.py"

OVERRIDES = {
    "model.channels": "8",
    "model.multipliers": "1,",
    "model.blocks": "1",
    "model.dropout": "0.1",
    "schedule.steps": "20",
    "train.batch_size": "8",
    "train.steps": "6",
    "train.log_every": "1",
    "train.save_every": "3",
    "train.sample_every": "0",
    "sample.num": "4",
    "sample.steps": "0",
    "optimizer.warmup_steps": "1",
    "optimizer.decay": "constant",
}


def settings(**changes):
    """The tiny configuration; a double underscore stands for a dot."""
    overrides = {**OVERRIDES, **{key.replace("__", "."): str(v) for key, v in changes.items()}}
    return configuration.load(str(DIGITS), list(overrides.items()))


def flags(**changes):
    """The same on a command line."""
    overrides = {**OVERRIDES, **{key.replace("__", "."): str(v) for key, v in changes.items()}}
    return [f"--config={DIGITS}", *(f"--config.{k}={v}" for k, v in overrides.items())]


def train(workdir, **changes):
    """A command line that trains the tiny run."""
    return [sys.executable, str(ROOT / "train.py"), f"--workdir={workdir}", *flags(**changes)]


def sample(workdir, *arguments):
    """A command line that samples from a run."""
    return [sys.executable, str(ROOT / "sample.py"), f"--workdir={workdir}", *map(str, arguments)]


def run_inside(command):
    """What `subprocess.run` of a command line of these scripts gives, without the new process."""
    script = importlib.import_module(f"diffusion_jax.commands.{Path(command[1]).stem}")
    return _captured(command[1:], lambda: command_line.run(script.main))


def run_program(*arguments):
    """What `diffusion-jax ...` gives."""
    return _captured(["diffusion-jax", *map(str, arguments)], program.main)


def _captured(argv, main):
    out, err, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            with mock.patch.object(sys, "argv", argv):
                main()
        except SystemExit as left:
            code = left.code
    return subprocess.CompletedProcess(argv, code, out.getvalue(), err.getvalue())


class Tiny:
    """Loss, optimiser, first state and batches of a tiny run."""

    def __init__(self, **changes):
        self.config = settings(**changes)
        source = build.source(self.config, "train")
        self.dataset = source.load()
        self.diffusion = build.diffusion(self.config, source.spec)
        self.loss = build.loss(self.config, self.diffusion)
        self.training = build.training(self.config, self.diffusion)

    def state(self):
        """Fresh, on the host, so that no test can use up another's buffers."""
        key = stream_key(self.config.seed, Stream.INIT)
        return jax.tree.map(np.asarray, self.training.init(key))

    def params(self):
        """The parameters of a fresh state, as the network and the loss take them."""
        return unpack_on_host(self.state().params, self.diffusion.shapes)

    def batch(self, step):
        """The whole batch of a step."""
        size = self.config.train.batch_size
        index = batch_indices(self.config.seed, step, size, len(self.dataset.images))
        return Batch(
            self.dataset.images[index],
            self.dataset.labels[index],
            np.arange(size, dtype=np.int32),
        )
