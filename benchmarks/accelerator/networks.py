"""The networks that the stages `step` and `sample` measure, and PyTorch's beside them."""

import argparse
import subprocess
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.harness import peer_client, programs, records
from diffusion_jax import configuration
from diffusion_jax.errors import UserError

CONFIG = records.ROOT / "configs" / "cifar10_fast.py"
# For a rehearsal on a CPU.
SMALL = {
    "model.channels": "8",
    "model.multipliers": "1,1",
    "model.blocks": "1",
}
ROUNDS = 5
BROKEN: dict[str, str] = {}  # peers that failed in this stage, and why


def job(options, batch: int, dtype: str = "bfloat16") -> programs.Job:
    """Build CIFAR-10's network for a batch of random images; a smaller one for a rehearsal."""
    overrides = {"train.batch_size": str(batch), "model.dtype": dtype}
    overrides |= SMALL if options.small else {}
    return programs.job(configuration.load(str(CONFIG), list(overrides.items())))


def rounds(options) -> argparse.Namespace:
    """Say how often `compare.compare` measures."""
    return argparse.Namespace(rounds=2 if options.small else ROUNDS)


def start_peer(
    options, one: programs.Job, stack: ExitStack, *warm_up
) -> tuple[list[peer_client.Peer], dict[str, Any]]:
    """Start PyTorch's network in another process and give it its first command, which compiles.

    diffusers' where it is installed, else the copy in `torch_unet`; compiled, or eager where that
    fails and in a rehearsal. It uses one GPU, so it is compared with nothing else.

    Returns:
        The peer, or none, and what to record of it.
    """
    if not options.peers or options.device["platform"] == "tpu" or len(options.device["kinds"]) > 1:
        return [], {}
    python = Path(options.peers)
    names = peer_client.CHOICES["diffusers" if has(python, "diffusers") else "torch"]
    settings = peer_client.settings(one.settings, one.data)
    for name in names[:1] if options.small else reversed(names):
        if name in BROKEN:
            continue
        try:
            started = stack.enter_context(peer_client.started(python, name, settings))
            if not options.small and started.about["device"] == "cpu":
                raise UserError(f"{python} has a torch that finds no GPU")
            if started.about["parameters"] != one.parameters:
                raise UserError(f"{name} has {started.about['parameters']} parameters")
            started.ask(*warm_up)
            return [started], {"peer": started.about}
        except UserError as error:
            BROKEN[name] = str(error)
    return [], {"peer_left_out": dict(BROKEN)}


def has(python: Path, package: str) -> bool:
    """Look whether an interpreter has a package."""
    code = f"import importlib.util, sys; sys.exit(importlib.util.find_spec('{package}') is None)"
    return subprocess.run([python, "-c", code], check=False).returncode == 0
