"""Data with exact denoisers, and samplers with their settings, that several tests share."""

from functools import partial

import jax
import numpy as np

from diffusion_jax.certification.subject import MEAN, VAR
from diffusion_jax.core import schedules
from diffusion_jax.core.process import VARIANCES, is_learned
from diffusion_jax.samplers.sample import SAMPLERS
from diffusion_jax.truth import exact

SCHEDULE = schedules.log_snr_linear(1000, 17)
EXPLODING = schedules.variance_exploding(1000)
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
