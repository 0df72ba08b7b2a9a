"""Ground truth, against derivatives, Bayes' rule and sampling; float64 throughout."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from diffusion_jax.core import schedules
from diffusion_jax.core.process import q_sample, q_step, reverse_process
from diffusion_jax.truth import exact

SCHEDULE = schedules.linear(50, 1e-3, 0.2)


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


def mixture(dims):
    """Three components with full, different covariances."""
    rng = np.random.default_rng(dims)
    roots = 0.4 * rng.normal(size=(3, dims, dims)) + 0.2 * np.eye(dims)
    covs = roots @ np.swapaxes(roots, 1, 2)
    return exact.mixture([0.2, 0.5, 0.3], rng.normal(size=(3, dims)), covs), covs


@pytest.fixture(params=[1, 2, 5])
def data(request):
    return mixture(request.param)[0]


def points(data, count=6):
    return jax.random.normal(jax.random.key(1), (count, data.mean.shape[-1]), jnp.float64)


def test_density_equals_scipys():
    data, covs = mixture(3)
    x = points(data)
    each = [stats.multivariate_normal(m, c).pdf(x) for m, c in zip(data.mean, covs, strict=True)]
    expected = np.log(np.exp(data.log_weight) @ np.array(each))
    np.testing.assert_allclose(exact.log_density(data, x), expected, rtol=1e-9)


def test_draws_have_the_moments_of_the_mixture():
    data, covs = mixture(2)
    x = np.asarray(exact.sample(data, jax.random.key(0), 200_000))
    weights = np.exp(data.log_weight)
    mean = weights @ data.mean
    spread = np.einsum("k,kd,ke->de", weights, data.mean - mean, data.mean - mean)
    cov = np.einsum("k,kde->de", weights, covs) + spread
    np.testing.assert_allclose(x.mean(0), mean, atol=4 * np.sqrt(cov.max() / len(x)))
    np.testing.assert_allclose(np.cov(x.T), cov, atol=0.02)


def test_score_is_the_gradient_of_the_log_density(data):
    x = points(data)
    gradient = jax.vmap(jax.grad(lambda x: exact.log_density(data, x)))(x)
    np.testing.assert_allclose(exact.score(data, x), gradient, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("t", [0, 20, 49])
def test_denoiser_is_tweedies_formula(data, t):
    """score of q(x_t) = -E[eps | x_t] / noise, E[x0 | x_t] = (x_t + noise^2 score) / signal."""
    x = points(data)
    score = exact.score(exact.marginal(data, SCHEDULE, t), x)
    denoised = exact.denoiser(SCHEDULE, data)(x, jnp.full(len(x), t))
    signal, noise = SCHEDULE.signal[t], SCHEDULE.noise[t]
    np.testing.assert_allclose(denoised.eps, -noise * score, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(denoised.x0, (x + noise**2 * score) / signal, rtol=1e-8, atol=1e-10)
    assert denoised.var_output is None


def test_posterior_mean_is_what_weighted_draws_say():
    """E[x0 | x_t] by drawing x0 and weighting with q(x_t | x0)."""
    data, t = mixture(2)[0], 25
    x0 = exact.sample(data, jax.random.key(2), 400_000)
    for xt in points(data, 3):
        log_weight = -0.5 * jnp.sum(
            jnp.square((xt - SCHEDULE.signal[t] * x0) / SCHEDULE.noise[t]), -1
        )
        weight = jax.nn.softmax(log_weight)
        mean = weight @ x0
        error = jnp.sqrt(jnp.square(weight) @ jnp.square(x0 - mean))
        ours = exact.denoiser(SCHEDULE, data)(xt[None], jnp.array([t])).x0[0]
        assert np.all(np.abs(ours - mean) < 4.0 * error)


def test_marginal_is_that_of_noised_draws():
    data, t = mixture(1)[0], 30
    x0 = exact.sample(data, jax.random.key(3), 50_000)
    eps = jax.random.normal(jax.random.key(4), x0.shape)
    xt = q_sample(SCHEDULE, x0, jnp.full(len(x0), t), eps)
    marginal = exact.marginal(data, SCHEDULE, t)

    def cdf(x):
        std = np.sqrt(marginal.var[:, 0])
        return stats.norm.cdf((x[:, None] - marginal.mean[:, 0]) / std) @ np.exp(data.log_weight)

    assert stats.kstest(np.asarray(xt[:, 0]), cdf).pvalue > 1e-3


@pytest.mark.parametrize("t", [1, 20, 49])
def test_reverse_step_is_bayes_rule(data, t):
    """log q(x_t | x_{t-1}) + log q(x_{t-1}) - log q(x_t), pointwise."""
    xt, previous = points(data), points(data)[::-1] * 0.7
    step = q_step(SCHEDULE, previous, jnp.full(len(xt), t))
    log_step = stats.norm.logpdf(xt, step.mean, jnp.sqrt(step.var)).sum(-1)
    before, now = (exact.marginal(data, SCHEDULE, s) for s in (t - 1, t))
    bayes = log_step + exact.log_density(before, previous) - exact.log_density(now, xt)
    reverse = exact.reverse_step(data, SCHEDULE, t, xt)
    np.testing.assert_allclose(exact.log_density(reverse, previous), bayes, rtol=1e-8, atol=1e-9)


def test_a_gaussian_is_a_mixture_of_one():
    data = exact.gaussian([0.1, -0.2], [[0.5, 0.2], [0.2, 0.3]])
    x = points(data)
    expected = stats.multivariate_normal([0.1, -0.2], [[0.5, 0.2], [0.2, 0.3]]).logpdf(x)
    np.testing.assert_allclose(exact.log_density(data, x), expected, rtol=1e-10)


def test_all_axes_but_the_last_are_independent():
    """A 1-D density serves as an image of independent pixels."""
    data = mixture(1)[0]
    images = jax.random.normal(jax.random.key(5), (2, 3, 4, 1), jnp.float64)
    t = jnp.array([5, 40])
    whole = exact.denoiser(SCHEDULE, data)(images, t)
    pixels = images.reshape(2, 12).reshape(24, 1)
    each = exact.denoiser(SCHEDULE, data)(pixels, jnp.repeat(t, 12))
    np.testing.assert_allclose(whole.x0.reshape(24, 1), each.x0, rtol=1e-12)


def test_the_exact_chain_of_gaussian_data_ends_at_the_data():
    """With many steps and its exact denoiser the model's own marginal is the data's."""
    mean, var = 0.3, 0.16
    errors = []
    for steps in (100, 1000):
        schedule = schedules.log_snr_linear(steps, 256)
        gain = schedule.signal * var / (schedule.signal**2 * var + schedule.noise**2)
        reverse = reverse_process(schedule, "fixed_large")
        ours = exact.affine_marginal(reverse, gain, mean - gain * schedule.signal * mean)
        assert abs(ours[0] - mean) < 1e-5
        errors.append(abs(ours[1] - var))
    assert errors[0] < 0.02
    assert 0.08 < errors[1] / errors[0] < 0.12  # like 1 / T
