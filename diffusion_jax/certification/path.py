"""Laws of the schedule: signal, noise and log-SNR agree, and moves obey Bayes' rule."""

from collections.abc import Iterator

import numpy as np

from diffusion_jax.certification.law import Law, at_least, at_most
from diffusion_jax.certification.subject import Subject
from diffusion_jax.core.moves import moves
from diffusion_jax.core.schedules import Schedule

ROUNDED = 1e-13  # relative; float64 numbers that are this near to float32 ones


def laws(subject: Subject) -> Iterator[Law]:
    """Yield the laws of the schedule."""
    name, schedule = subject.name("schedule.name"), subject.schedule
    log_snr = schedule.log_snr
    steps = -np.diff(log_snr)
    if len(steps):
        where = f"smallest after t = {int(np.argmin(steps))}"
        yield at_least(name, "log-SNR falls at every step", steps.min(), 1e-300, where)
    yield at_most(name, "signal^2 / noise^2 is the SNR", _disagreement(schedule), 1e-9)
    yield at_most(
        name,
        "its tables have float64's precision: share of entries that are float32 numbers",
        _share_of_float32(schedule),
        0.5,
        "compute products and logarithms in float64" if _share_of_float32(schedule) > 0.5 else "",
    )
    if schedule.steps > 1:
        error, t = _bayes(schedule)
        yield at_most(
            name, "moves obey Bayes' rule: error of log q(x_s | x_t, x0)", error, 1e-6, f"t = {t}"
        )
        yield at_most(name, "steps make the marginals: error of variance", _chained(schedule), 1e-9)


def _finite(schedule: Schedule) -> np.ndarray:
    return np.flatnonzero(schedule.signal > 0.0)


def _disagreement(schedule: Schedule) -> float:
    some = _finite(schedule)
    snr = 2.0 * np.log(schedule.signal[some] / schedule.noise[some])
    return float(np.max(np.abs(snr - schedule.log_snr[some]) / np.maximum(np.abs(snr), 1.0)))


def _share_of_float32(schedule: Schedule) -> float:
    """Return the largest share, over tables, of entries that float32 represents exactly."""
    some = _finite(schedule)
    tables = [np.square(schedule.signal), schedule.log_snr, schedule.noise, schedule.signal]
    tables += [np.square(schedule.noise)]
    shares = []
    for table in tables:
        values = np.unique(table[some])
        if len(values) < 8 or np.allclose(values, values[0]):
            continue
        near = np.abs(values - values.astype(np.float32)) <= ROUNDED * np.abs(values)
        shares.append(near.mean())
    return float(max(shares, default=0.0))


def _bayes(schedule: Schedule) -> tuple[float, int]:
    """Return the largest error of the posterior's log-density at random points, and its t."""
    t = np.arange(1, schedule.steps)
    row = moves(schedule, t, t - 1)
    rng = np.random.default_rng(0)
    x0, eps, z = rng.normal(size=(3, 16, len(t)))
    step = row.start.signal / row.end.signal
    xs = row.end.signal * x0 + row.end.noise * eps
    xt = step * xs + np.sqrt(row.forward_var) * z
    mean = row.x0_weight * x0 + row.xt_weight * xt
    joint = _log(xt, step * xs, row.forward_var) + _log(xs, row.end.signal * x0, row.end.noise**2)
    posterior = joint - _log(xt, row.start.signal * x0, row.start.noise**2)
    error = np.abs(posterior - _log(xs, mean, row.posterior_var))
    # The densities' logarithms are large where variances are small: compare beside them.
    relative = error / (1.0 + np.abs(np.log(row.posterior_var)) + z**2 + eps**2)
    worst = np.nanargmax(np.where(np.isfinite(relative), relative, np.inf).max(axis=0))
    return float(relative[:, worst].max()), int(t[worst])


def _log(x, mean, var):
    return -0.5 * (np.log(2.0 * np.pi * var) + np.square(x - mean) / var)


def _chained(schedule: Schedule) -> float:
    """Return the relative error of noise_t^2 = step^2 noise_s^2 + forward variance."""
    t = np.arange(1, schedule.steps)
    row = moves(schedule, t, t - 1)
    step = row.start.signal / row.end.signal
    chained = np.square(step * row.end.noise) + row.forward_var
    return float(np.max(np.abs(chained / np.square(row.start.noise) - 1.0)))
