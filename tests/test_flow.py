"""The probability-flow ODE's likelihood, where the density is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.core import flow, gaussian, schedules
from diffusion_jax.evaluation import report
from diffusion_jax.truth import exact

# Far enough into the noise that q(x_T) is N(0, I) for all that can be seen here.
SCHEDULE = schedules.log_snr_linear(1000, 256, log_snr_min=-14.0)
DATA = exact.mixture(
    [0.3, 0.7],
    [[-0.5, 0.4], [0.6, -0.2]],
    [[[0.05, 0.02], [0.02, 0.04]], [[0.03, -0.01], [-0.01, 0.06]]],
)
START = exact.marginal(DATA, SCHEDULE, 0)
X = exact.sample(START, jax.random.key(0), 1000)


def error_of(steps, x=X):
    """ODE minus truth in nats, per point."""
    grid = schedules.uniform_log_snr(SCHEDULE, steps + 1)
    nats = flow.flow_nats(grid, exact.denoiser(grid, DATA), flow.exact_divergence, x)[0]
    return np.asarray(nats + exact.log_density(START, x))


def test_likelihood_of_a_mixture():
    error = error_of(300)
    assert abs(error.mean()) / (2 * np.log(2.0)) < 1e-3
    assert np.abs(error).max() < 5e-3


def test_the_error_falls_with_the_square_of_the_step():
    coarse, middle, fine = (np.abs(error_of(n, X[:100])).mean() for n in (25, 50, 100))
    assert 1.6 < np.log2(coarse / middle) < 2.6
    assert 1.6 < np.log2(middle / fine) < 2.6


def test_half_the_steps_tell_the_error():
    """Few steps flatter; how much, the difference to half of them says."""
    fine, coarse = error_of(60, X[:200]), error_of(30, X[:200])
    estimate = report.discretisation_error(fine, coarse, 60)
    assert fine.mean() < 0.0
    assert 0.95 < estimate.mean() / fine.mean() < 1.25


def field(x):
    """Every image's value a function of that image alone."""
    root = jnp.array([[0.3, 1.0, 0.2], [-0.4, 0.1, 0.5], [0.7, 0.2, -0.6]])
    return jnp.sin(x @ root) * x


def test_exact_divergence_is_the_trace_of_the_jacobian():
    x = jax.random.normal(jax.random.key(1), (5, 3))
    value, trace = flow.exact_divergence(field, x)
    jacobian = jax.vmap(jax.jacobian(lambda each: field(each[None])[0]))(x)
    np.testing.assert_allclose(value, field(x), rtol=1e-6)
    np.testing.assert_allclose(trace[0], jnp.trace(jacobian, axis1=1, axis2=2), rtol=1e-5)


def test_hutchinson_is_unbiased_with_an_honest_spread():
    x = jnp.broadcast_to(jnp.array([0.4, -0.8, 1.3]), (4000, 3))
    probes = flow.rademacher_probes(jax.random.split(jax.random.key(2), 4000), 2, (3,))
    value, traces = flow.hutchinson(probes)(field, x)
    exactly = flow.exact_divergence(field, x[:1])[1][0, 0]
    assert traces.shape == (2, 4000)
    np.testing.assert_allclose(value, field(x), rtol=1e-6)
    assert abs(traces.mean() - exactly) < 4.0 * traces.std() / np.sqrt(traces.size)
    # Two probes of one image are independent.
    assert abs(np.corrcoef(traces)[0, 1]) < 0.08


def test_probes_work_in_double_precision():
    with jax.enable_x64(True):
        x = jnp.array([[0.4, -0.8, 1.3]], jnp.float64)
        probes = flow.rademacher_probes(jax.random.split(jax.random.key(2), 1), 5, (3,))
        _, traces = flow.hutchinson(probes)(field, x)
        jacobian = jax.jacobian(lambda each: field(each[None])[0])(x[0])
        expected = jnp.einsum("pi,ij,pj->p", probes[:, 0], jacobian, probes[:, 0])
        assert traces.dtype == jnp.float64
        np.testing.assert_allclose(traces[:, 0], expected, rtol=1e-12)


def test_hutchinsons_likelihood_agrees_with_the_exact_one():
    grid = schedules.uniform_log_snr(SCHEDULE, 61)
    x = X[:300]
    probes = flow.rademacher_probes(jax.random.split(jax.random.key(3), 300), 8, (2,))
    denoise = exact.denoiser(grid, DATA)
    nats = flow.flow_nats(grid, denoise, flow.hutchinson(probes), x)
    difference = nats.mean(0) - flow.flow_nats(grid, denoise, flow.exact_divergence, x)[0]
    error = np.sqrt(np.var(nats, axis=0, ddof=1).mean() / 8 / 300)
    assert abs(difference.mean()) < 4.0 * error


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_dequantised_levels_fill_their_bins(levels):
    level = jnp.arange(levels)
    width = 2.0 / (levels - 1)
    for uniform in (0.0, 0.5, 0.999):
        x = flow.dequantise(level, uniform, levels)
        centre = 2.0 * level / (levels - 1) - 1.0
        np.testing.assert_allclose(x - centre, (uniform - 0.5) * width, atol=2e-6)
    np.testing.assert_allclose(flow.log_bin_nats(levels, 3), 3 * np.log(width))


def test_a_density_of_dequantised_data_bounds_the_levels_likelihood():
    """-log P(level) <= E_u[-log p(x)] - log bin, and nearly equal where bins are narrow."""
    mean, log_var = 0.1, np.log(0.2)
    gaps = []
    for levels in (5, 256):
        level = jnp.arange(1, levels - 1)
        log_p = gaussian.discretised_log_likelihood(level, mean, log_var, levels)
        u = (jnp.arange(400)[:, None] + 0.5) / 400
        x = flow.dequantise(level, u, levels)
        density = gaussian.log_density(x, jnp.asarray(mean), jnp.asarray(log_var))
        gap = -density.mean(0) - flow.log_bin_nats(levels, 1) + log_p
        assert np.all(gap > -2e-5)
        gaps.append(float(gap.mean()))
    assert gaps[1] < 1e-3 * gaps[0] + 2e-5


def test_unit_normal_data_have_an_exact_prior_on_every_path():
    """x_T ~ N(0, scale_T^2 I) whatever the path, so the ODE's own error is all that is left."""
    data = exact.gaussian(0.0, 1.0)
    x = jnp.linspace(-2.0, 2.0, 7)[:, None]
    for schedule in (SCHEDULE, schedules.variance_exploding(1000, 0.01, 3.0)):
        grid = schedules.uniform_log_snr(schedule, 61)
        nats = flow.flow_nats(grid, exact.denoiser(grid, data), flow.exact_divergence, x)[0]
        expected = -exact.log_density(exact.marginal(data, schedule, 0), x)
        np.testing.assert_allclose(nats, expected, atol=5e-3)
