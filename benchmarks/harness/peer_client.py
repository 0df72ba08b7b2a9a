"""A peer's network in a process of its own, in an environment of its own (`make peers`)."""

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from benchmarks.harness import records
from diffusion_jax.config import Config
from diffusion_jax.data.dataset import DataSpec
from diffusion_jax.errors import UserError
from diffusion_jax.models.layers import groups

PYTHON = records.ROOT / ".venv-peers" / "bin" / "python"

# The processes that each choice starts; ours is compared with the fastest of them.
CHOICES = {
    "none": (),
    "diffusers": ("diffusers", "diffusers_compiled"),
    "torch": ("torch", "torch_compiled"),
    "denoising_diffusion_pytorch": ("denoising_diffusion_pytorch",),
}

# What the peers' networks cannot be told, and how ours has to be for a comparison.
PLAIN = {
    "classes": 0,
    "heads": 1,
    "scale_shift_norm": False,
    "resample_in_blocks": False,
    "remat": False,
}


def settings(config: Config, data: DataSpec) -> dict[str, Any]:
    """One of our configs as the peers' program takes it.

    Raises:
        UserError: the peers have no such network.
    """
    model, optimizer = config.model, config.optimizer
    for key, plain in PLAIN.items():
        if model[key] != plain:
            has = f"config.model.{key}={model[key]}"
            raise UserError(f"no peer has {has}; set it to {plain}, or take --peer=none")
    return {
        "shape": data.shape,
        "channels": model.channels,
        "multipliers": model.multipliers,
        "blocks": model.blocks,
        "attention_resolutions": model.attention_resolutions,
        "dropout": model.dropout,
        "norm_groups": groups(model.channels),  # at every width
        "dtype": model.dtype,
        "batch": config.train.batch_size,
        "adam": {
            "lr": optimizer.learning_rate,
            "betas": (optimizer.b1, optimizer.b2),
            "eps": optimizer.eps,
        },
        "clip_norm": optimizer.clip_norm,
        "ema_decay": config.ema.decay,
    }


class Peer:
    """One peer's process, idle until it is asked; `started` starts it."""

    def __init__(self, name: str, process: subprocess.Popen, errors: IO[str]):
        self.name, self._process, self._errors = name, process, errors
        self.about = self._answer()

    def ask(self, *command: Any) -> dict[str, Any]:
        """Let it do one thing; how long it took, and what it found.

        Raises:
            UserError: it died; the last line that it wrote tells why.
        """
        assert self._process.stdin
        with suppress(BrokenPipeError):  # the answer that does not come says why
            print(*command, file=self._process.stdin, flush=True)
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if line:
            return json.loads(line)
        self._process.wait()
        self._errors.seek(0)
        last = [text for text in self._errors.read().splitlines() if text.strip()][-1:]
        raise UserError(f"the peer {self.name} ended: {''.join(last) or 'without a word'}")


@contextmanager
def started(python: Path, name: str, given: dict, **environment: str) -> Iterator[Peer]:
    """A peer's process, which ends with the context.

    Args:
        given: what `settings` says.
        environment: more variables for it.
    """
    check(python)
    threads = str(len(os.sched_getaffinity(0)))  # as many as XLA takes
    command = [
        str(python.absolute()),
        "-m",
        "benchmarks.harness.peer_server",
        name,
        json.dumps(given),
    ]
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(
            command,
            cwd=records.ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": threads, **environment},
        ) as process,
    ):
        try:
            yield Peer(name, process, errors)
        finally:
            process.kill()


def check(python: Path) -> None:
    """Refuse an interpreter that is not there."""
    if not python.is_file():
        raise UserError(
            f"no interpreter {python} for the peers; run `make peers`, name one with "
            "--peers=PYTHON, or take --peer=none"
        )
