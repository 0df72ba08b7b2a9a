"""Measure samplers' errors by network calls on a 2-D mixture with its exact denoiser, in float64.

python -m benchmarks.studies.solvers [--calls 10 20 40] [--samples 20000] [--out x.json]

The sliced Wasserstein-1 distance of samples to exact draws and, for methods without noise, the
distance of their end points to those of 5000 steps from the same noises. The grid is even in
log-SNR.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np

from benchmarks.harness import records
from diffusion_jax.command_line import positive, run
from diffusion_jax.core import schedules
from diffusion_jax.core.moves import descent
from diffusion_jax.core.tables import bind
from diffusion_jax.samplers.base import Plan, Sampler
from diffusion_jax.samplers.sample import SAMPLERS, sample
from diffusion_jax.truth import exact

SCHEDULE = schedules.log_snr_linear(1000, 17)
COVS = [[[0.04, 0.0], [0.0, 0.04]], [[0.09, 0.03], [0.03, 0.05]]]
DATA = exact.mixture([0.4, 0.6], [[-0.7, 0.2], [0.6, -0.3]], COVS)
SETTINGS = {
    "variance": "fixed_small",
    "eta": 0.0,
    "churn": 40.0,
    "langevin_steps": 1,
    "langevin_rate": 0.1,
}
REFERENCE, FOLLOWED = 5000, 1000  # steps, and how many end points are compared
ANGLES = np.pi * np.arange(64) / 64


def plan(sampler: Sampler, steps: int) -> Plan:
    """Return a sampler's plan on a grid of `steps` steps."""
    grid = schedules.uniform_log_snr(SCHEDULE, steps)
    return sampler.plan(grid, descent(grid))


def steps_for(plan_of: Callable[[int], Plan], calls: int) -> int:
    """Return the steps that take about `calls` network calls, which are linear in the steps."""
    first, second = (len(plan_of(steps).rows.index) for steps in (1, 2))
    return max(1, math.ceil(0.5 + (calls - first) / (second - first)))


def end_points(sampler: Sampler, steps: int, keys: jax.Array) -> np.ndarray:
    """Draw `[n, 2]` with the exact denoiser."""
    grid = schedules.uniform_log_snr(SCHEDULE, steps)
    denoise_on = partial(exact.denoiser, data=DATA)
    return np.asarray(jax.jit(lambda keys: sample(sampler, denoise_on, keys, (2,), grid))(keys))


def projected(x) -> np.ndarray:
    """Sort points `[n, 2]` along every direction: a mean difference is a sliced distance."""
    return np.sort(np.asarray(x) @ np.stack([np.cos(ANGLES), np.sin(ANGLES)]), axis=0)


def errors(asked: list[int], count: int) -> dict[str, Any]:
    """Return both errors of every method by calls, and the error of exact draws."""
    target, *others = (projected(exact.sample(DATA, jax.random.key(i), count)) for i in range(11))
    keys = jax.random.split(jax.random.key(100), count)
    truth = end_points(SAMPLERS["dpmpp_3m"](), REFERENCE, keys[:FOLLOWED])
    rows = []
    for name, make in SAMPLERS.items():
        sampler = bind(make, SETTINGS, variance=SETTINGS["variance"])()
        for calls in asked:
            steps = steps_for(partial(plan, sampler), calls)
            taken, x = plan(sampler, steps).rows, end_points(sampler, steps, keys)
            row = {"method": name, "steps": steps, "calls": len(taken.index)}
            row["sliced_wasserstein"] = float(np.abs(projected(x) - target).mean())
            if not taken.table.std.any():
                off = np.linalg.norm(x[:FOLLOWED] - truth, axis=1)
                row["endpoint_error"] = float(off.mean())
            rows.append(row)
            print(row, flush=True)
    floor = float(np.mean([np.abs(each - target).mean() for each in others]))
    return {"samples": count, "settings": SETTINGS, "floor": floor, "rows": rows}


def main(arguments: list[str]) -> None:
    """Measure and report."""
    parser = records.parser("studies.solvers", __doc__)
    calls = [10, 20, 40, 80, 160, 320]
    parser.add_argument("--calls", type=positive, nargs="+", default=calls)
    parser.add_argument("--samples", type=positive, default=20_000)
    given = parser.parse_args(arguments)
    with jax.enable_x64(True):
        result = errors(given.calls, given.samples)
    records.save(given.out, result)


if __name__ == "__main__":
    run(main)
