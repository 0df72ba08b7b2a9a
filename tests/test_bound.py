"""The bound against data whose likelihood is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.core import bound, exact, gaussian, schedules
from diffusion_jax.core.arrays import at
from diffusion_jax.core.predictions import Denoised
from diffusion_jax.core.process import VARIANCES, p_mean_variance, q_posterior, q_sample

SCHEDULES = {
    "linear": schedules.linear(100, 1e-3, 0.2),
    "cosine": schedules.cosine(100),
    "log_snr": schedules.log_snr_linear(100, 17),
}
MEAN, VAR = 0.1, 0.2


@pytest.mark.parametrize("variance", VARIANCES)
@pytest.mark.parametrize("name", SCHEDULES)
def test_term_equals_the_divergence_of_the_two_gaussians(name, variance):
    """The float64 shortcut through the error of x0 equals KL(posterior || model step)."""
    schedule = SCHEDULES[name]
    t = jnp.arange(1, 100)
    x0 = MEAN + np.sqrt(VAR) * jax.random.normal(jax.random.key(0), (99, 4, 4, 1))
    xt = q_sample(schedule, x0, t, jax.random.normal(jax.random.key(1), x0.shape))
    denoise = exact.gaussian_denoiser(schedule, MEAN, VAR)
    p = p_mean_variance(schedule, denoise, variance, xt, t)
    q = q_posterior(schedule, x0, xt, t)
    expected = gaussian.kl(q.mean, jnp.log(q.var), p.mean, jnp.log(p.var)).sum((1, 2, 3))
    nats = bound.diffusion_nats(schedule, variance, x0, denoise(xt, t).x0, t)
    np.testing.assert_allclose(nats, expected, rtol=2e-3, atol=2e-5)


def test_variance_part_keeps_its_digits_at_large_t():
    """With the fixed-large variance the textbook form cancels in float32; ours is float64."""
    schedule = schedules.linear(1000)
    row = schedules.single_steps(schedule)
    ratio = np.log(row.forward_var[990] / row.posterior_var[990])
    x0 = jnp.zeros((1, 1, 1, 1))
    nats = bound.diffusion_nats(schedule, "fixed_large", x0, x0, jnp.array([990]))
    np.testing.assert_allclose(nats[0], 0.5 * (np.expm1(-ratio) + ratio), rtol=1e-6)


def mean_gap(variance, steps, count=8000, levels=17):
    """Bound minus truth in nats, and its standard error: discrete data, its exact denoiser."""
    schedule = schedules.log_snr_linear(steps, levels)
    grid = 2.0 * jnp.arange(levels) / (levels - 1) - 1.0
    log_p = gaussian.discretised_log_likelihood(jnp.arange(levels), MEAN, np.log(VAR), levels)
    level = jax.random.categorical(jax.random.key(2), log_p, shape=(count,))
    x0 = grid[level].reshape(count, 1, 1, 1)

    def denoise(x, t):
        """E[x0 | x_t] of the discrete data by Bayes' rule over its levels."""
        signal, noise = at(schedule.signal, t, x), at(schedule.noise, t, x)
        posterior = jax.nn.softmax(log_p - 0.5 * jnp.square((x - signal * grid) / noise))
        x0 = jnp.sum(posterior * grid, -1, keepdims=True)
        return Denoised(x0, (x - signal * x0) / noise)

    keys = jax.random.split(jax.random.key(3), count)
    terms = bound.bound_nats(schedule, variance, denoise, levels, keys, x0)
    assert terms.terms.shape == (steps, count)
    gap = terms.total + log_p[level]
    return float(gap.mean()), float(gap.std()) / np.sqrt(count)


@pytest.mark.parametrize("variance", VARIANCES)
def test_the_bound_lies_above_the_truth_and_tightens_with_more_steps(variance):
    gaps = [mean_gap(variance, steps) for steps in (25, 100, 400)]
    for gap, error in gaps:
        assert gap > -4.0 * error
    # The exact denoiser leaves only the cost of finite steps, which falls like 1 / T.
    (coarse, _), (middle, middle_error), (fine, fine_error) = gaps
    assert middle < coarse / 2.5 + 4.0 * middle_error
    assert fine < middle / 2.5 + 4.0 * fine_error
