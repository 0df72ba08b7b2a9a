"""From per-image likelihoods to the report: means, standard errors, rate and distortion."""

import math
from typing import Any

import numpy as np

from diffusion_jax.core.bound import strata

Arrays = dict[str, np.ndarray]


def mean_and_error(values: np.ndarray) -> dict[str, float | None]:
    """Compute the mean over images and its standard error, None for a single image."""
    count = len(values)
    error = float(np.std(values, ddof=1) / math.sqrt(count)) if count > 1 else None
    return {"mean": float(np.mean(values)), "stderr": error}


def bound_terms(bound: Arrays, dims: int) -> dict[str, dict[str, float | None]]:
    """Compute total, prior, diffusion and reconstruction in bits/dim, with standard errors.

    Args:
        bound: result of the measure `bound` over all images.
        dims: number of dimensions of one image.
    """
    unit = dims * math.log(2.0)
    nats = np.asarray(bound["nats"], np.float64)
    parts = {
        "prior": np.asarray(bound["prior"], np.float64) / unit,
        "diffusion": nats[1:].sum(0) / unit,
        "reconstruction": nats[0] / unit,
    }
    total = parts["prior"] + parts["diffusion"] + parts["reconstruction"]
    return {name: mean_and_error(each) for name, each in {"total": total, **parts}.items()}


def per_timestep(bound: Arrays, steps: int, every: int, dims: int) -> list[dict[str, Any]]:
    """Return one row per stratum: its first t, its number of steps, and means over images.

    nats (of an image) and bits_per_dim are those of one step; x0_mse and eps_mse are means over
    dimensions. rate: bits/dim sent until the receiver has x_t, with t in the middle of the stratum;
    distortion: root mean squared error of x0 predicted from x_t, on the scale 0 .. 255
    (Ho et al. 2020, section 4.3).
    """
    runs, unit = strata(steps, every), dims * math.log(2.0)
    nats, x0_mse, eps_mse = (
        np.asarray(bound[key], np.float64).mean(1) for key in ("nats", "x0_mse", "eps_mse")
    )
    later = nats[::-1].cumsum()[::-1] - nats
    # At the drawn step, on average half-way, half of the stratum's other steps are sent.
    own = nats * 0.5 * (runs.size - 1) / runs.size
    sent = np.asarray(bound["prior"], np.float64).mean() + later + own
    return [
        {
            "t": int(runs.start[i]),
            "steps": int(runs.size[i]),
            "nats": float(nats[i] / runs.size[i]),
            "bits_per_dim": float(nats[i] / runs.size[i] / unit),
            "x0_mse": float(x0_mse[i]),
            "eps_mse": float(eps_mse[i]),
            "rate": float(sent[i] / unit),
            "distortion": 127.5 * math.sqrt(x0_mse[i]),
        }
        for i in range(len(nats))
    ]


def trajectory_check(bound: Arrays, nats: np.ndarray, dims: int) -> dict[str, Any]:
    """Compare the bound with its estimate from whole trajectories, image by image."""
    unit = dims * math.log(2.0)
    total = bound["prior"] + np.sum(bound["nats"], axis=0, dtype=np.float64)
    return {
        **mean_and_error(nats / unit),
        "total_minus_this": mean_and_error((total - nats) / unit),
    }


def ode_summary(
    nats: np.ndarray, half: np.ndarray | None, bound: Arrays, dims: int, steps: int
) -> dict[str, Any]:
    """Summarise the ODE's likelihood and the bound of the same dequantised data, in bits/dim.

    Args:
        nats: `[probes, n]`.
        half: the same in `steps // 2` steps; None if there is only one step.
        bound: result of the measure `bound_dequantised`.
    """
    unit = dims * math.log(2.0)
    probes, count = nats.shape
    spread = float(np.mean(np.var(nats, axis=0, ddof=1)))
    error = None if half is None else float(np.mean(discretisation_error(nats, half, steps))) / unit
    return {
        **mean_and_error(np.asarray(nats, np.float64).mean(0) / unit),
        "stderr_of_probes": math.sqrt(spread / probes / count) / unit,
        "discretisation_error": error,
        "probes": probes,
        "steps": steps,
        "data": "uniformly dequantised, continuous decoder",
        "bound": bound_terms(bound, dims),
    }


def discretisation_error(nats: np.ndarray, half: np.ndarray, steps: int) -> np.ndarray:
    """Estimate by how much the ODE's -log p exceeds that of infinitely many steps.

    The error falls with the square of the step (Heun's method), so half the steps have
    (steps / half)^2 times as much, and the difference of both gives it (Richardson extrapolation).

    Args:
        nats, half: -log p in `steps` and `steps // 2` steps, of the same points and probes.
    """
    ratio = (steps / (steps // 2)) ** 2
    return (np.asarray(half, np.float64) - nats) / (ratio - 1.0)
