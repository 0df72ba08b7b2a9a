"""What do the bound, its rivals and the ODE cost where the truth is known? Tables in float64.

python -m benchmarks.studies.theory [--out benchmarks/results/theory.json]
"""

import argparse
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.harness import records
from diffusion_jax.core import estimators, flow, schedules
from diffusion_jax.core.bound import bound_nats
from diffusion_jax.core.predictions import Denoised
from diffusion_jax.core.process import reverse_process
from diffusion_jax.core.schedules import Schedule
from diffusion_jax.truth import bookkeeping, density_grid, exact

MEAN, VAR = 0.1, 0.2
DATA = exact.gaussian(MEAN, VAR)
ENTROPY = 0.5 * np.log(2.0 * np.pi * np.e * VAR)
PATH = {"levels": 256, "log_snr_min": -14.0}  # one log-SNR path, cut into T steps
PEAKS = exact.mixture([0.4, 0.6], [[-0.6], [0.8]], [[[0.09]], [[0.0625]]])


def gap_nats(schedule: Schedule, variance: str, decoder: str = "first_noise") -> float:
    """E bound - H(x0) per dimension for Gaussian data and its exact denoiser, in closed form.

    A bound of expectations: every term is a mean over N(0.1, 0.2), with a continuous decoder.
    """
    reverse = reverse_process(schedule, variance, decoder)
    row, model_var = reverse.moves, np.exp(reverse.log_var.offset)
    signal, noise = schedule.signal, schedule.noise
    error = VAR * noise**2 / (signal**2 * VAR + noise**2)
    first = 0.5 * (np.log(2.0 * np.pi * model_var[0]) + error[0] / model_var[0])
    ratio = np.log(model_var[1:] / row.posterior_var[1:])
    shift = (row.x0_weight**2 * error / model_var)[1:]
    terms = 0.5 * (np.expm1(-ratio) + ratio + shift)
    last = signal[-1] ** 2 * (VAR + MEAN**2)
    prior = 0.5 * (last + np.expm1(2.0 * np.log(noise[-1])) - 2.0 * np.log(noise[-1]))
    return float(first + terms.sum() + prior - ENTROPY)


def gaps() -> list[dict]:
    """The cost of finite steps on one path."""
    rows = []
    for steps in (10, 30, 100, 300, 1000, 3000, 10_000):
        schedule = schedules.log_snr_linear(steps, **PATH)
        each = {name: gap_nats(schedule, name) for name in ("fixed_large", "fixed_small")}
        clipped = gap_nats(schedule, "fixed_large", "clipped")
        rows.append({"steps": steps, **each, "fixed_large_clipped_decoder": clipped})
    return rows


def naive() -> list[dict]:
    """Relative standard deviation of one naive draw of p(x0), and of one weighted trajectory.

    Betas shrink like 1/T, as in practice, so that more steps make the decoder sharper.
    """
    count, x0, rows = 200_000, 0.3, []
    for steps in (2, 8, 32, 128):
        schedule = schedules.linear(steps, 0.1 / steps, min(20.0 / steps, 0.9))
        reverse, denoise = reverse_process(schedule, "fixed_large"), exact.denoiser(schedule, DATA)
        keys = jax.random.split(jax.random.key(0), count)
        chains = estimators.naive_log_likelihoods(reverse, denoise, None, keys, jnp.full(1, x0))
        x = jnp.full((count, 1), x0)
        weights = -estimators.trajectory_nats(reverse, denoise, None, keys, x)
        spread = [estimators.log_mean_exp(each)[1] * count**0.5 for each in (chains, weights)]
        rows.append({"steps": steps, "naive": float(spread[0]), "importance": float(spread[1])})
    return rows


def importance_weighted() -> list[dict]:
    """The K-sample bound minus the model's own -log p(x0), in a chain of 8 poor steps."""
    schedule = schedules.log_snr_linear(8, 17)
    signal, noise = schedule.signal, schedule.noise
    slope = 0.8 * signal * VAR / (signal**2 * VAR + noise**2)
    reverse = reverse_process(schedule, "fixed_large")
    mean, var = exact.affine_marginal(reverse, slope, 0.0 * slope)
    truth = 0.5 * (np.log(2.0 * np.pi * var) + (0.3 - mean) ** 2 / var)

    def denoise(x, t):
        return Denoised(jnp.asarray(slope, x.dtype)[t][:, None] * x, x)

    keys = jax.random.split(jax.random.key(1), 512_000)
    x0 = jnp.full((len(keys), 1), 0.3)
    nats = estimators.trajectory_nats(reverse, denoise, None, keys, x0)
    rows = []
    for k in (1, 2, 4, 16, 64, 256):
        bound = estimators.importance_weighted_nats(nats.reshape(k, -1))
        error = float(bound.std() / len(bound) ** 0.5)
        rows.append({"k": k, "bound_minus_truth": float(bound.mean() - truth), "stderr": error})
    return rows


def ode() -> list[dict]:
    """Error of the ODE's likelihood of a 2-D mixture over 1000 points, against its steps."""
    covs = [[[0.05, 0.02], [0.02, 0.04]], [[0.03, -0.01], [-0.01, 0.06]]]
    data = exact.mixture([0.3, 0.7], [[-0.5, 0.4], [0.6, -0.2]], covs)
    schedule = schedules.log_snr_linear(1000, **PATH)
    start = exact.marginal(data, schedule, 0)
    x, rows = exact.sample(start, jax.random.key(2), 1000), []
    for steps in (25, 50, 100, 200, 400):
        grid = schedules.uniform_log_snr(schedule, steps + 1)
        nats = flow.flow_nats(grid, exact.denoiser(grid, data), flow.exact_divergence, x)[0]
        error = np.asarray(nats + exact.log_density(start, x))
        mean_bits = float(error.mean() / (2.0 * np.log(2.0)))
        largest = float(np.abs(error).max())
        rows.append({"steps": steps, "mean_bits_per_dim": mean_bits, "largest_nats": largest})
    return rows


def fixed_points() -> list[dict]:
    """How far the posterior's fixed point is from q(x_{t-1}), and how slowly it is approached."""
    x = np.linspace(-5.0, 5.0, 400)
    density, width = (
        np.exp(np.asarray(exact.log_density(PEAKS, jnp.asarray(x)[:, None]))),
        x[1] - x[0],
    )
    rows = []
    for alpha in (0.999, 0.99, 0.9, 0.7, 0.5, 0.3, 0.1):
        kernel = density_grid.posterior_kernel(density, x, alpha)
        distance = density_grid.l1(density_grid.fixed_point(density, x, alpha), density, width)
        eigenvalue = density_grid.second_eigenvalue(kernel, width)
        rows.append({"alpha": alpha, "l1": float(distance), "second_eigenvalue": eigenvalue})
    return rows


def dropped_term() -> list[dict]:
    """K2 = E log p(x0 | x_1) + H(x_1 | x0) per dimension, which one founding text sets to zero."""
    rows = []
    for name, schedule in {
        "linear": schedules.linear(1000),
        "cosine": schedules.cosine(1000),
        "log_snr": schedules.log_snr_linear(1000, 256),
    }.items():
        x0 = exact.sample(DATA, jax.random.key(3), 512)
        reverse, denoise = reverse_process(schedule, "fixed_large"), exact.denoiser(schedule, DATA)
        keys = jax.random.split(jax.random.key(4), len(x0))
        bound = bound_nats(reverse, denoise, None, keys, x0)
        fit = bookkeeping.bookkeeping(schedule, x0, bound).fit
        rows.append({"schedule": name, "k2_nats": float(fit.mean())})
    return rows


TABLES = {
    "gap_nats_per_dim": gaps,
    "naive_relative_std": naive,
    "importance_weighted_nats": importance_weighted,
    "ode_error": ode,
    "posterior_fixed_point": fixed_points,
    "dropped_term": dropped_term,
}


def main() -> None:
    """Compute every table and save them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    with jax.enable_x64(True):
        tables = {name: table() for name, table in TABLES.items()}
    records.save(given.out, tables)


if __name__ == "__main__":
    main()
