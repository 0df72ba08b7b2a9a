"""Tabulate the bound and its parts where the truth is known, in float64.

python -m benchmarks.studies.theory [--out x.json]
"""

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.harness import records
from diffusion_jax.command_line import run
from diffusion_jax.core import schedules
from diffusion_jax.core.bound import bound_nats
from diffusion_jax.core.process import reverse_process
from diffusion_jax.core.schedules import Schedule
from diffusion_jax.truth import bookkeeping, density_grid, exact

MEAN, VAR = 0.1, 0.2
DATA = exact.gaussian(MEAN, VAR)
ENTROPY = 0.5 * np.log(2.0 * np.pi * np.e * VAR)
PATH = {"levels": 256, "log_snr_min": -14.0}  # one log-SNR path, cut into T steps
PEAKS = exact.mixture([0.4, 0.6], [[-0.6], [0.8]], [[[0.09]], [[0.0625]]])


def gap_nats(schedule: Schedule, variance: str, decoder: str = "first_noise") -> float:
    """Return E bound - H(x0) per dimension for N(0.1, 0.2) and its exact denoiser, in closed form.

    Every term is an expectation over the data; the decoder is continuous.
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
    """Tabulate the cost of finite steps on one path."""

    def row(steps: int) -> dict:
        schedule = schedules.log_snr_linear(steps, **PATH)
        return {
            "steps": steps,
            "fixed_large": gap_nats(schedule, "fixed_large"),
            "fixed_small": gap_nats(schedule, "fixed_small"),
            "fixed_large_clipped_decoder": gap_nats(schedule, "fixed_large", "clipped"),
        }

    return [row(steps) for steps in (10, 30, 100, 300, 1000, 3000, 10_000)]


def fixed_points() -> list[dict]:
    """Return the fixed point's distance from q(x_{t-1}) and the posterior's second eigenvalue."""
    x = np.linspace(-5.0, 5.0, 400)
    density = np.exp(np.asarray(exact.log_density(PEAKS, jnp.asarray(x)[:, None])))
    rows, width = [], x[1] - x[0]
    for alpha in (0.999, 0.99, 0.9, 0.7, 0.5, 0.3, 0.1):
        kernel = density_grid.posterior_kernel(density, x, alpha)
        distance = density_grid.l1(density_grid.fixed_point(density, x, alpha), density, width)
        eigenvalue = density_grid.second_eigenvalue(kernel, width)
        rows.append({"alpha": alpha, "l1": float(distance), "second_eigenvalue": eigenvalue})
    return rows


def dropped_term() -> list[dict]:
    """Return the fit, E log p(x0 | x_1) + H(x_1 | x0), per dimension: never zero."""
    made = {"linear": schedules.linear(1000), "cosine": schedules.cosine(1000)}
    made["log_snr"] = schedules.log_snr_linear(1000, 256)
    rows, x0 = [], exact.sample(DATA, jax.random.key(3), 512)
    for name, schedule in made.items():
        reverse, denoise = reverse_process(schedule, "fixed_large"), exact.denoiser(schedule, DATA)
        keys = jax.random.split(jax.random.key(4), len(x0))
        bound = bound_nats(reverse, denoise, None, keys, x0)
        fit = bookkeeping.bookkeeping(schedule, x0, bound).fit
        rows.append({"schedule": name, "k2_nats": float(fit.mean())})
    return rows


def main(arguments: list[str]) -> None:
    """Compute every table and save them."""
    given = records.parser("studies.theory", __doc__).parse_args(arguments)
    with jax.enable_x64(True):
        tables = {"gap_nats_per_dim": gaps(), "posterior_fixed_point": fixed_points()}
        records.save(given.out, {**tables, "dropped_term": dropped_term()})


if __name__ == "__main__":
    run(main)
