"""Laws of the sampler: it restores known data, at its order, image by image.

For samplers whose rows are linear (`samplers.linear.Table`) mean and variance on Gaussian data
follow in closed form, in float64; others are judged by samples of a mixture.
"""

import math
from collections.abc import Iterator
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np

from diffusion_jax.certification.law import FAILS, HOLDS, Law, at_least, at_most, unjudged
from diffusion_jax.certification.subject import MEAN, VAR, Subject
from diffusion_jax.core.keys import fold
from diffusion_jax.core.moves import descent
from diffusion_jax.core.predictions import Denoise, denoiser
from diffusion_jax.core.schedules import Schedule, uniform_log_snr
from diffusion_jax.samplers.base import Plan
from diffusion_jax.samplers.grids import make_grid
from diffusion_jax.samplers.linear import Table
from diffusion_jax.samplers.sample import prior_sample, rounded, sample, scan_rows, start
from diffusion_jax.truth import exact

COUNTS = (80, 160, 320)  # steps at which errors are compared, each twice the one before
WITHIN = 0.02  # relative error of the variance in the limit of many steps
COUNT = 4096  # samples of the mixture


def laws(subject: Subject) -> Iterator[Law]:
    """Yield the laws of the sampler."""
    name = subject.name("sample.sampler")
    plan = _plan(subject, uniform_log_snr(subject.schedule, 40))
    if isinstance(plan.rows.table, Table):
        yield from _in_closed_form(subject, name, plan.rows.table)
        yield from _stationary(plan, name)
    else:
        yield unjudged(name, "order and variance in closed form", "its rows are not linear")
    yield _mixture(subject, name)
    yield from _practical(subject, name)


def _plan(subject: Subject, grid: Schedule) -> Plan:
    return subject.sampler.plan(grid, descent(grid))


def _in_closed_form(subject: Subject, name: str, table: Table) -> Iterator[Law]:
    errors = []
    for count in COUNTS:
        grid = uniform_log_snr(subject.schedule, count)
        mean, var = gaussian_moments(_plan(subject, grid), grid.scale[-1])
        errors.append(np.array([mean - MEAN, var / VAR - 1.0]))
    limit = np.abs(2.0 * errors[-1] - errors[-2])  # of an error that falls like 1/n
    prior = _prior_error(subject)
    yield at_most(
        name,
        "on Gaussian data, mean and variance become exact with more steps: error left",
        float(limit.max()),
        WITHIN + prior,
        f"at {COUNTS[-1]} steps: mean {errors[-1][0]:+.2g}, variance {errors[-1][1]:+.2g}",
    )
    if np.any(table.std):
        return
    # Differences, as what the prior leaves out is the same for all.
    sizes = [np.abs(one - other).max() for one, other in pairwise(errors)]
    wanted = table.x0_weights.shape[1]
    statement = "its order is the number of predictions that it combines"
    if sizes[-1] < 1e-9:
        yield unjudged(name, statement, "it is exact on Gaussian data")
        return
    order = math.log2(sizes[0] / sizes[1])
    yield at_least(name, f"{statement} ({wanted}): order", order, wanted - 0.4)


def _prior_error(subject: Subject) -> float:
    """Return how far x_T's true mean and variance are from those of the prior, relatively."""
    schedule = subject.schedule
    signal, noise, scale = (each[-1] for each in (schedule.signal, schedule.noise, schedule.scale))
    var = (signal**2 * VAR + noise**2) / scale**2
    return 3.0 * max(abs(signal * MEAN / scale), abs(var - 1.0))


def gaussian_moments(plan: Plan, prior_std: float) -> tuple[float, float]:
    """Return mean and variance of x after all rows, with the exact denoiser of N(MEAN, VAR).

    The exact x0 is affine in x, so that a row maps (x, x before, past x0s, 1) linearly, plus noise.
    """
    table, points = plan.rows.table, plan.points
    order = table.x0_weights.shape[1]
    size = 2 + order  # x, x before, x0 of 1 .. order - 1 rows ago, 1
    mean, cov = np.zeros(size), np.zeros((size, size))
    mean[-1], cov[0, 0] = 1.0, prior_std**2
    for i, t in enumerate(table.t):
        signal, noise = points.signal[t], points.noise[t]
        gain = signal * VAR / (signal**2 * VAR + noise**2)
        predicted = np.zeros(size)
        predicted[0], predicted[-1] = gain, MEAN * (1.0 - gain * signal)
        known = [predicted, *np.eye(size)[2 : 1 + order]]
        row = np.zeros((size, size))
        row[0] = sum(w * each for w, each in zip(table.x0_weights[i], known, strict=True))
        row[0, 0] += table.xt_weight[i]
        row[0, 1] += table.last_weight[i]
        row[1, 0] = row[-1, -1] = 1.0
        for k in range(order - 1):
            row[2 + k] = known[k]
        mean, cov = row @ mean, row @ cov @ row.T
        cov[0, 0] += table.std[i] ** 2
    return float(mean[0]), float(cov[0, 0])


def _stationary(plan: Plan, name: str) -> Iterator[Law]:
    """Judge rows that add noise without changing the level, as Langevin steps do.

    x' = x + (delta/2) score + sqrt(delta) eps changes a variance v by delta^2 / (4 v) only.
    """
    table, points, rows = plan.rows.table, plan.points, plan.rows
    signal, noise = points.signal[table.t], points.noise[table.t]
    same = np.isclose(rows.signal, signal) & np.isclose(rows.noise, noise) & (table.std > 0.0)
    some = np.flatnonzero(same & (signal > 0.0))
    if not len(some):
        return
    var = signal[some] ** 2 * VAR + noise[some] ** 2
    gain = signal[some] * VAR / var
    slope = table.xt_weight[some] + table.x0_weights[some, 0] * gain
    delta = table.std[some] ** 2
    after = slope**2 * var + delta
    excess = np.abs(after - var) / var
    allowed = 0.3 * (delta / var) ** 2 + 1e-9
    worst = int(np.argmax(excess / allowed))
    yield at_most(
        name,
        "rows that stay on a level keep its variance, to second order in their size: error",
        float(excess[worst]),
        float(allowed[worst]),
        f"t = {int(table.t[some[worst]])} of {points.steps}",
    )


DATA = exact.mixture([0.4, 0.6], [[-0.5], [0.4]], [[[0.15**2]], [[0.2**2]]])


def _denoise(subject: Subject, points: Schedule) -> Denoise:
    """Return the exact denoiser of the mixture, asked through the configured prediction."""
    meaning, truth = subject.meaning.on(points), exact.denoiser(points, DATA)

    def perfect(seen: jax.Array, time: jax.Array) -> jax.Array:
        where = jnp.argmin(jnp.abs(jnp.asarray(points.time)[:, None] - time), axis=0)
        scale = jnp.asarray(points.scale, seen.dtype)[where].reshape(-1, 1, 1, 1)
        x = seen * scale
        found = truth(x, where)
        return meaning.target(found.x0, found.eps, where)

    return denoiser(perfect, meaning, clip=False)


def _draw(subject: Subject, grid: Schedule, keys: jax.Array) -> np.ndarray:
    shape = (1, 1, 1)

    def drawn(keys):
        return sample(subject.sampler, lambda points: _denoise(subject, points), keys, shape, grid)

    return np.asarray(jax.jit(drawn)(keys)).reshape(-1)


def _mixture(subject: Subject, name: str) -> Law:
    """Compare samples of a mixture with its distribution function."""
    count = min(200, subject.schedule.steps)
    grid = uniform_log_snr(subject.schedule, count)
    x = np.sort(_draw(subject, grid, jax.random.split(jax.random.key(0), COUNT)).astype(np.float64))
    z = (x[:, None] - DATA.mean[:, 0]) / np.sqrt(2.0 * DATA.var[:, 0])
    cdf = 0.5 * (1.0 + np.asarray(jax.scipy.special.erf(z), np.float64)) @ np.exp(DATA.log_weight)
    rank = np.arange(COUNT + 1) / COUNT
    distance = max(np.abs(cdf - rank[1:]).max(), np.abs(cdf - rank[:-1]).max())
    if not np.all(np.isfinite(x)):
        distance = math.inf
    limit = 1.63 / math.sqrt(COUNT) + 0.02 + _prior_error(subject)  # the 1% point, and its steps
    statement = f"with {count} steps it restores a mixture: Kolmogorov-Smirnov distance"
    return at_most(name, statement, float(distance), limit)


def _practical(subject: Subject, name: str) -> Iterator[Law]:
    keys = jax.random.split(jax.random.key(1), 4)
    steps = subject.config.sample.steps or subject.schedule.steps
    grid = make_grid(subject.grid, subject.schedule, min(steps, subject.schedule.steps, 50))
    together, alone = _draw(subject, grid, keys), _draw(subject, grid, keys[:1])
    gap = float(np.abs(together[:1] - alone).max())
    yield at_most(name, "an image alone is that of a batch: difference", gap, 1e-4)
    few = sorted({1, min(2, subject.schedule.steps), grid.steps})
    wrong = [
        count
        for count in few
        if not np.all(
            np.isfinite(_draw(subject, make_grid(subject.grid, subject.schedule, count), keys))
        )
    ]
    note = f"not at {wrong[0]} steps" if wrong else ""
    verdict = FAILS if wrong else HOLDS
    shown = f"at {', '.join(map(str, few))} steps"
    yield Law(name, f"images are finite {shown}", str(not wrong), "True", verdict, note)
    yield _last_row(subject, name, grid)


def _last_row(subject: Subject, name: str, grid: Schedule) -> Law:
    """Judge whether the last row adds noise: other keys must not change it."""
    plan = _plan(subject, grid)
    statement = "the last row adds no noise: difference by other keys"
    if plan.rows.noise[-1] > 0.0:
        left = plan.rows.noise[-1]
        return unjudged(name, statement, f"by design it ends at noise {left:.3g}, not at the data")
    last = jax.tree.map(lambda a: a[-1:], rounded(plan.rows))
    keys = jax.random.split(jax.random.key(2), 8)
    x = 0.1 * prior_sample(grid, keys, (1, 1, 1))
    denoise = _denoise(subject, plan.points)
    ends = [
        scan_rows(subject.sampler, denoise, fold(keys, salt), start(subject.sampler, x), last).x
        for salt in (0, 1)
    ]
    change = float(jnp.abs(ends[0] - ends[1]).max())
    return at_most(name, statement, change, 1e-7)
