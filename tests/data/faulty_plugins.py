"""Faults that were real in published code, as entries of the tables; `certify` names each.

The names say what is wrong. The right versions are in the package.
"""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

import diffusion_jax as dj
from diffusion_jax.core import schedules
from diffusion_jax.core.arrays import lookup, sum_event
from diffusion_jax.core.bound import diffusion_nats
from diffusion_jax.core.gaussian import log_density
from diffusion_jax.core.predictions import Denoised, split_output
from diffusion_jax.core.process import LogVariance, q_sample
from diffusion_jax.core.timesteps import Drawn, uniform
from diffusion_jax.samplers.ancestral import ancestral_table, ddim, single_stage
from diffusion_jax.samplers.base import Plan, interleave
from diffusion_jax.samplers.dpm_solver import dpmpp_2m
from diffusion_jax.samplers.langevin import predictor_corrector
from diffusion_jax.samplers.linear import linear_sampler, table


def float32_products(steps):
    """Cumulative products in float32."""
    betas = np.linspace(1e-4, 0.02, steps, dtype=np.float32)
    alpha_bar = np.cumprod(np.float32(1.0) - betas, dtype=np.float32)
    return schedules.from_log_snr(np.log(alpha_bar) - np.log(np.float32(1.0) - alpha_bar))


dj.SCHEDULES["float32_products"] = float32_products


def inverted_min_snr(meaning):
    """The larger of SNR and SNR^2 / 5 in place of the smaller of SNR and 5."""
    snr = np.exp(meaning.schedule.log_snr)
    return snr * np.maximum(snr / 5.0, 1.0)


dj.WEIGHTS["inverted_min_snr"] = inverted_min_snr


def variance_as_std(row):
    """The variance where its logarithm is wanted of a standard deviation."""
    return LogVariance(0.5 * np.log(row.forward_var), np.zeros_like(row.forward_var))


def earlier_posterior(row):
    """The posterior variance of step t-1."""
    var = np.where(row.s < 0, row.forward_var, row.posterior_var)
    return LogVariance(np.log(np.roll(var, 1)), np.zeros_like(var))


dj.VARIANCES.update({"variance_as_std": variance_as_std, "earlier_posterior": earlier_posterior})


def without_first(steps):
    """Draw t from 1 .. T-1 only."""
    right = uniform(steps)

    def draw(memory, key, index, batch):
        drawn = right.draw(memory, key, index, batch)
        return Drawn(jnp.maximum(drawn.t, 1), drawn.weight)

    return right._replace(draw=draw)


dj.TIMESTEPS["without_first"] = without_first


def _tanh_log_bin(level, mean, log_var, levels):
    """The bin's probability by the tanh approximation of the normal CDF."""

    def cdf(x):
        return 0.5 * (1.0 + jnp.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)))

    std = jnp.exp(0.5 * log_var)
    x, half = 2.0 * level / (levels - 1) - 1.0, 1.0 / (levels - 1)
    return jnp.log(jnp.maximum(cdf((x + half - mean) / std) - cdf((x - half - mean) / std), 1e-12))


def _density(level, mean, log_var, levels):
    """The density, without the width of a bin."""
    return log_density(2.0 * level / (levels - 1) - 1.0, mean, log_var)


def _bound(first, entropy, model, output, x0, eps, t):
    meaning, reverse = model.meaning, model.reverse
    y, var_output = split_output(output, x0)
    xt = q_sample(meaning.schedule, x0, t, eps)
    denoised = Denoised(meaning.to_x0(y, xt, t), meaning.to_eps(y, xt, t), var_output)
    level = jnp.round((x0 + 1.0) * 0.5 * (model.levels - 1))
    log_var = lookup(reverse.log_var.offset, t, x0)
    start = -sum_event(first(level, denoised.x0, log_var, model.levels), t)
    rest = diffusion_nats(reverse, denoised, x0, eps, t)
    if not entropy:  # cross-entropy in place of the divergence
        posterior = np.where(reverse.moves.s < 0, 1.0, reverse.moves.posterior_var)
        rest = rest + lookup(0.5 * np.log(2.0 * np.pi * np.e * posterior), t, rest)
    nats = jnp.where(t == 0, start, rest)
    return meaning.schedule.steps * nats / (x0[0].size * math.log(2.0))


def _exact(level, mean, log_var, levels):
    from diffusion_jax.core.gaussian import discretised_log_likelihood

    return discretised_log_likelihood(level, mean, log_var, levels)


dj.LOSSES["tanh_cdf"] = partial(_bound, _tanh_log_bin, True)
dj.LOSSES["no_entropy"] = partial(_bound, _exact, False)
dj.LOSSES["no_dequantisation"] = partial(_bound, _density, True)


def summed_over_devices(model, output, x0, eps, t):
    """A gradient that grows with the number of devices."""
    return jax.device_count() * dj.LOSSES["weighted"](model, output, x0, eps, t)


dj.LOSSES["summed_over_devices"] = summed_over_devices


def halved_second_difference():
    """DPM-Solver++ whose correction by the last prediction has half its size."""
    right = dpmpp_2m()

    def plan(grid, moves):
        made = right.plan(grid, moves)
        weights = made.rows.table.x0_weights
        halved = np.stack([weights[:, 0] + 0.5 * weights[:, 1], 0.5 * weights[:, 1]], axis=1)
        rows = made.rows._replace(table=made.rows.table._replace(x0_weights=halved))
        return made._replace(rows=rows)

    return linear_sampler(plan, order=2)


def ddim_wrong_alpha():
    """DDIM that removes no noise for what it adds."""

    def plan(grid, moves):
        std = 0.7 * np.sqrt(moves.posterior_var)
        xt_weight = moves.end.noise / moves.start.noise
        x0_weight = moves.end.signal - xt_weight * moves.start.signal
        rows = table(moves.t, xt_weight, [x0_weight], std)
        return Plan(grid, interleave([single_stage(moves, rows)]))

    return linear_sampler(plan)


def noise_at_the_end(variance):
    """Ancestral sampling that adds noise on the last step."""

    def plan(grid, moves):
        rows = ancestral_table(moves, variance)
        std = np.where(moves.s < 0, moves.start.noise, rows.std)
        return Plan(grid, interleave([single_stage(moves, rows._replace(std=std))]))

    return linear_sampler(plan)


def churn_without_level():
    """Churn that adds noise and calls the network at the old level."""
    right = ddim()

    def plan(grid, moves):
        made = right.plan(grid, moves)
        extra = np.where(moves.s < 0, 0.0, 0.3 * moves.end.noise)
        rows = made.rows._replace(table=made.rows.table._replace(std=extra))
        return made._replace(rows=rows)

    return linear_sampler(plan)


def half_langevin_step(variance):
    """A corrector whose drift has half its size."""
    right = predictor_corrector(variance, langevin_rate=0.2)

    def plan(grid, moves):
        made = right.plan(grid, moves)
        rows = made.rows.table
        corrects = np.isclose(made.rows.noise, grid.noise[rows.t])
        xt = np.where(corrects, 0.5 * (1.0 + rows.xt_weight), rows.xt_weight)
        x0 = np.where(corrects[:, None], 0.5 * rows.x0_weights, rows.x0_weights)
        changed = rows._replace(xt_weight=xt, x0_weights=x0)
        return made._replace(rows=made.rows._replace(table=changed))

    return linear_sampler(plan)


dj.SAMPLERS.update(
    {
        "halved_second_difference": halved_second_difference,
        "ddim_wrong_alpha": ddim_wrong_alpha,
        "noise_at_the_end": noise_at_the_end,
        "churn_without_level": churn_without_level,
        "half_langevin_step": half_langevin_step,
    }
)
