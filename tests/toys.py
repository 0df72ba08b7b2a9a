"""Data with exact denoisers, and samplers with their settings, that several tests share."""

from functools import partial

import jax
import numpy as np

from diffusion_jax.core import schedules
from diffusion_jax.core.process import VARIANCES, is_learned
from diffusion_jax.samplers.sample import SAMPLERS
from diffusion_jax.truth import exact

SCHEDULE = schedules.log_snr_linear(1000, 17)
EXPLODING = schedules.variance_exploding(1000)
MEAN, VAR = 0.3, 0.16
GAUSSIAN = partial(exact.denoiser, data=exact.gaussian(MEAN, VAR))
MIXTURE = exact.mixture(
    [0.4, 0.6], [[-0.7, 0.2], [0.6, -0.3]], [0.2**2 * np.eye(2), [[0.09, 0.03], [0.03, 0.05]]]
)
MIXED = partial(exact.denoiser, data=MIXTURE)
FIXED = [name for name in VARIANCES if not is_learned(name)]
COUNT = 20_000

ARGUMENTS = {
    "ancestral": {"variance": "fixed_small"},
    "ddim": {"eta": 0.0},
    "edm": {"churn": 40.0},
    "langevin": {"langevin_steps": 2, "langevin_rate": 0.1},
    "predictor_corrector": {
        "variance": "fixed_small",
        "langevin_steps": 1,
        "langevin_rate": 0.1,
    },
}

STOCHASTIC = [
    *[("ancestral", {"variance": each}) for each in FIXED],
    ("ddim", {"eta": 0.5}),
    ("dpmpp_sde", {}),
    ("edm", {"churn": 40.0}),
    ("langevin", ARGUMENTS["langevin"]),
    ("predictor_corrector", ARGUMENTS["predictor_corrector"]),
]


def ordinary(name, steps):
    """A schedule of the table, with its default settings."""
    arguments = {"betas": [np.linspace(1e-4, 0.02, steps)], "log_snr": [steps, 256]}
    return schedules.SCHEDULES[name](*arguments.get(name, [steps]))


def make(name, **changes):
    return SAMPLERS[name](**{**ARGUMENTS.get(name, {}), **changes})


def keys_of(count, seed=0):
    return jax.random.split(jax.random.key(seed), count)


def chain_moments(plan, prior_std):
    """Mean and variance of x after all rows on Gaussian data, in closed form, float64.

    The exact x0 is affine in x, so a row maps (x, x before, past x0s, 1) linearly, plus noise.
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
    return mean[0], cov[0, 0]


def ks_distance(x):
    """The largest Kolmogorov-Smirnov distance to the mixture over both axes."""
    data, worst = MIXTURE, 0.0
    for axis in range(2):
        points = np.sort(np.asarray(x)[:, axis].astype(np.float64))
        std = np.sqrt(np.einsum("kde,ke->kd", np.square(data.axes), data.var))[:, axis]
        z = (points[:, None] - data.mean[:, axis]) / (std * np.sqrt(2.0))
        erf = np.asarray(jax.scipy.special.erf(z))
        cdf = (0.5 * (1.0 + erf)) @ np.exp(data.log_weight)
        rank = np.arange(len(points) + 1) / len(points)
        worst = max(worst, np.abs(cdf - rank[1:]).max(), np.abs(cdf - rank[:-1]).max())
    return worst
