"""Run a PyTorch network in its own process and environment (`make peers`)."""

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from benchmarks.harness.records import ROOT
from diffusion_jax.configuration import Config
from diffusion_jax.data.dataset import DataSpec
from diffusion_jax.errors import UserError
from diffusion_jax.models.layers import groups

PYTHON = ROOT / ".venv-peers" / "bin" / "python"

# The processes of each choice; ours is compared with the fastest of them.
CHOICES = {
    "none": (),
    "diffusers": ("diffusers", "diffusers_compiled"),
    "torch": ("torch", "torch_compiled"),
}

# Settings that the peers' networks lack, with the value they correspond to.
PLAIN = {
    "classes": 0,
    "heads": 1,
    "scale_shift_norm": False,
    "resample_in_blocks": False,
    "remat": False,
}


def settings(config: Config, data: DataSpec) -> dict[str, Any]:
    """Describe one of our configs to `peer_server`.

    Raises:
        UserError: the peers have no such network.
    """
    model, optimizer = config.model, config.optimizer
    for key, plain in PLAIN.items():
        if model[key] != plain:
            has = f"config.model.{key}={model[key]}"
            raise UserError(f"no peer has {has}; set it to {plain}, or take --peer=none")
    betas = (optimizer.b1, optimizer.b2)
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
        "adam": {"lr": optimizer.learning_rate, "betas": betas, "eps": optimizer.eps},
        "clip_norm": optimizer.clip_norm,
        "ema_decay": config.ema.decay,
    }


class Peer:
    """A peer's process, idle until asked; `started` starts it."""

    def __init__(self, name: str, process: subprocess.Popen, errors: IO[str]):
        self.name, self._process, self._errors = name, process, errors
        self.about = self._answer()

    def ask(self, *command: Any) -> dict[str, Any]:
        """Run one command; return its seconds and what it found.

        Raises:
            UserError: the process died; the message ends with its last line.
        """
        assert self._process.stdin
        with suppress(BrokenPipeError):  # the missing answer is reported below
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
        raise UserError(f"the peer {self.name} ended: {''.join(last) or 'without a message'}")


@contextmanager
def started(python: Path, name: str, given: dict, **environment: str) -> Iterator[Peer]:
    """Start a peer's process, which ends with the context.

    Args:
        given: what `settings` returns.
        environment: additional variables.
    """
    check(python)
    threads = str(len(os.sched_getaffinity(0)))  # as many as XLA takes
    server = ["-m", "benchmarks.harness.peer_server", name, json.dumps(given)]
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(
            [str(python.absolute()), *server],
            cwd=ROOT,
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
    """Refuse an interpreter that does not exist."""
    if not python.is_file():
        raise UserError(
            f"no interpreter {python} for the peers; run `make peers`, name one with "
            "--peers=PYTHON, or take --peer=none"
        )
