"""Time grids: which training steps a sampler visits."""

import numpy as np

from diffusion_jax.core.schedules import Moves, Schedule, moves


def uniform(schedule: Schedule, steps: int) -> Moves:
    """Moves over `steps` evenly spaced training steps, from the last one down to the data.

    Raises:
        ValueError: `steps` is below 1 or above the schedule's number of steps.
    """
    if not 1 <= steps <= schedule.steps:
        raise ValueError(f"steps must lie in 1 .. {schedule.steps}, got {steps}")
    t = np.rint(np.linspace(schedule.steps - 1, 0, steps)).astype(np.int32)
    return moves(schedule, t, np.append(t[1:], -1))
