"""Time grids: which noise levels a sampler visits.

To add one: write a function from a schedule and a number of steps to a schedule, and add its line
to `GRIDS`. Its other arguments are keys under `config.sample`. Any other subset of the training
steps is `schedule.take([...])`.
"""

from collections.abc import Callable

import numpy as np

from diffusion_jax.core.schedules import Schedule, spaced, uniform_log_snr
from diffusion_jax.core.tables import entry


def uniform_time(schedule: Schedule, steps: int) -> Schedule:
    """Return evenly spaced training steps, always including the last one."""
    return schedule.take(np.rint(np.linspace(schedule.steps - 1, 0, steps)).astype(int)[::-1])


def quadratic(schedule: Schedule, steps: int) -> Schedule:
    """Return quadratically spaced steps, denser near the data (Song et al. 2020, appendix D.2)."""
    t = np.rint(np.linspace(1, 0, steps)[::-1] ** 2 * (schedule.steps - 1)).astype(int)
    order = np.arange(steps)
    return schedule.take(np.maximum.accumulate(t - order) + order)  # no step twice


def karras(schedule: Schedule, steps: int, rho: float = 7.0) -> Schedule:
    """Space sigma^(1/rho) evenly, where sigma = noise / signal (Karras et al. 2022, eq. 5).

    Args:
        steps: number of levels.
        rho: the larger, the denser the levels near the data; at least 1.
    """
    if rho < 1.0:
        raise ValueError(f"rho is {rho:g}; it must be at least 1")

    def spacing(first: float, last: float, n: int) -> np.ndarray:
        noisy, clean = np.exp(-0.5 * np.array([last, first]) / rho)
        return -2.0 * rho * np.log(np.linspace(noisy, clean, n)[::-1])

    return spaced(schedule, steps, spacing)


GRIDS: dict[str, Callable[..., Schedule]] = {
    "uniform": uniform_time,
    "quadratic": quadratic,
    "log_snr": uniform_log_snr,
    "karras": karras,
}


def make_grid(
    grid: str | Callable[[Schedule, int], Schedule], schedule: Schedule, steps: int
) -> Schedule:
    """Build a grid.

    Args:
        grid: a name in `GRIDS`, or a function like its entries.

    Raises:
        ValueError: `steps` is below 1 or above the schedule's number of steps.
    """
    if not 1 <= steps <= schedule.steps:
        raise ValueError(f"steps must lie in 1 .. {schedule.steps}, got {steps}")
    return entry(GRIDS, grid)(schedule, steps)
