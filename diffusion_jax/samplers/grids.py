"""Time grids: which noise levels a sampler visits.

To add one: write a function from a schedule and a number of steps to a schedule, and add its line
to `GRIDS`. Any other subset of the training steps is `schedule.take([...])`.
"""

import numpy as np

from diffusion_jax.core.schedules import Schedule, uniform_log_snr

KARRAS_RHO = 7.0  # Karras et al. 2022, table 1


def uniform_time(schedule: Schedule, steps: int) -> Schedule:
    """Return evenly spaced training steps, always including the last one."""
    return schedule.take(np.rint(np.linspace(schedule.steps - 1, 0, steps)).astype(int)[::-1])


def quadratic(schedule: Schedule, steps: int) -> Schedule:
    """Return quadratically spaced steps, denser near the data (Song et al. 2020, appendix D.2)."""
    t = np.rint(np.linspace(1, 0, steps)[::-1] ** 2 * (schedule.steps - 1)).astype(int)
    order = np.arange(steps)
    return schedule.take(np.maximum.accumulate(t - order) + order)  # no step twice


def karras(schedule: Schedule, steps: int) -> Schedule:
    """Space sigma^(1/7) evenly, where sigma = noise / signal (Karras et al. 2022, eq. 5)."""
    noisy, clean = np.exp(-0.5 * schedule.log_snr[[-1, 0]] / KARRAS_RHO)
    root = np.linspace(noisy, clean, steps)[::-1]
    return schedule.at_log_snr(-2.0 * KARRAS_RHO * np.log(root))


GRIDS = {
    "uniform": uniform_time,
    "quadratic": quadratic,
    "log_snr": uniform_log_snr,
    "karras": karras,
}


def make_grid(name: str, schedule: Schedule, steps: int) -> Schedule:
    """Build the named grid of `GRIDS`.

    Raises:
        ValueError: `steps` is below 1 or above the schedule's number of steps.
    """
    if not 1 <= steps <= schedule.steps:
        raise ValueError(f"steps must lie in 1 .. {schedule.steps}, got {steps}")
    return GRIDS[name](schedule, steps)
