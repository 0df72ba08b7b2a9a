"""The memory that a training step needs, compared with what is free."""

from typing import Any

from diffusion_jax.configuration import Config
from diffusion_jax.errors import UserError

GIB, MIB = 2**30, 2**20


def needed_bytes(program: Any) -> int:
    """Return the memory per device that a compiled program's state, batch and temporaries take."""
    memory = program.memory_analysis()
    if memory is None:
        return 0
    shared = memory.alias_size_in_bytes  # outputs in the place of inputs
    held = memory.argument_size_in_bytes + memory.output_size_in_bytes - shared
    return held + memory.temp_size_in_bytes


def check_step_fits(config: Config, needed: int, free: float) -> None:
    """Raise a `UserError` if a step needs more memory per device than is free, in bytes."""
    if needed <= free:
        return
    part = config.train
    smaller = f"raise config.train.accumulate ({part.accumulate}) or lower config.train.batch_size "
    smaller += f"({part.batch_size})"
    if "channels" in config.model:
        smaller += f", or config.model.channels ({config.model.channels})"
    raise UserError(
        f"a training step needs {needed / GIB:.1f} GiB per device, {(needed - free) / GIB:.1f} GiB "
        f"more than the {free / GIB:.1f} GiB that are free; {smaller}"
    )
