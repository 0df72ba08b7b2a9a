"""`train.py --verify`: check that a run's checkpoints are as they were written."""

from pathlib import Path

from diffusion_jax.checkpoints import step_folders
from diffusion_jax.errors import UserError
from diffusion_jax.run.record import read


def verify(workdir: Path) -> None:
    """Read every file of every checkpoint and compare it with its manifest.

    Raises:
        UserError: the folder holds no run, or a checkpoint is damaged.
    """
    folder = read(workdir).checkpoints
    steps, damaged = step_folders.complete(folder), []
    for step in steps:
        wrong = step_folders.damage(folder, step)
        if wrong and step not in step_folders.complete(folder):
            print(f"checkpoint {step}: removed meanwhile by a training process", flush=True)
            continue
        print(f"checkpoint {step}: {'good' if wrong is None else wrong}", flush=True)
        damaged += [step] if wrong else []
    for step in step_folders.unnamed(folder):
        print(f"checkpoint {step}: incomplete (no manifest), ignored", flush=True)
    if not steps:
        print(f"no checkpoint in {folder}")
    if damaged:
        good = [step for step in steps if step not in damaged]
        then = f"training and sampling use {good[-1]}" if good else "none is good; restore one"
        raise UserError(
            f"{len(damaged)} of {len(steps)} checkpoints in {folder} are damaged "
            f"({', '.join(map(str, damaged))}); {then}"
        )
