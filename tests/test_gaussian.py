"""Laws of Gaussians: against Monte Carlo, against each other, and in the tails."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from diffusion_jax.core import gaussian

RNG = np.random.default_rng(0)
Q = (jnp.array([0.3, -1.0, 2.0]), jnp.array([-0.5, 0.2, 1.0]))
P = (jnp.array([0.0, -0.4, 1.0]), jnp.array([0.1, -0.3, 0.9]))


def test_log_density_equals_scipy():
    x = RNG.normal(size=50)
    expected = stats.norm.logpdf(x, 0.3, np.exp(0.5 * -0.7))
    np.testing.assert_allclose(gaussian.log_density(x, 0.3, -0.7), expected, rtol=2e-6)


def test_kl_is_the_expected_log_ratio():
    draws = Q[0] + jnp.exp(0.5 * Q[1]) * jax.random.normal(jax.random.key(0), (400_000, 3))
    ratio = gaussian.log_density(draws, *Q) - gaussian.log_density(draws, *P)
    error = 4.0 * ratio.std(0) / np.sqrt(len(draws))
    assert np.all(np.abs(ratio.mean(0) - gaussian.kl(*Q, *P)) < error)


def test_full_kl_equals_the_diagonal_one():
    diagonal = gaussian.kl(*Q, *P).sum()
    full = gaussian.kl_full(Q[0], jnp.diag(jnp.exp(Q[1])), P[0], jnp.diag(jnp.exp(P[1])))
    np.testing.assert_allclose(full, diagonal, rtol=1e-5)


def test_full_kl_does_not_depend_on_the_basis():
    basis = np.linalg.qr(RNG.normal(size=(3, 3)))[0]
    root = RNG.normal(size=(3, 3)) + 2.0 * np.eye(3)
    cov_q, cov_p = root @ root.T, np.diag([1.0, 2.0, 0.5])
    plain = gaussian.kl_full(Q[0], cov_q, P[0], cov_p)
    turned = gaussian.kl_full(
        basis @ Q[0], basis @ cov_q @ basis.T, basis @ P[0], basis @ cov_p @ basis.T
    )
    np.testing.assert_allclose(plain, turned, rtol=1e-4)


@pytest.mark.parametrize("d", [1e-6, 1e-3, 0.05, 0.0999, 0.1001, 1.0, -0.05, -2.0])
def test_kl_of_near_variances_keeps_its_digits(d):
    exact = 0.5 * (np.expm1(-np.float64(d)) + d) if abs(d) > 1e-4 else 0.25 * d**2 * (1 - d / 3)
    np.testing.assert_allclose(gaussian.kl(0.0, 0.0, 0.0, jnp.float32(d)), exact, rtol=4e-6)


def test_cross_entropy_is_entropy_plus_kl():
    expected = gaussian.entropy(Q[1]) + gaussian.kl(*Q, *P)
    np.testing.assert_allclose(gaussian.cross_entropy(*Q, *P), expected, rtol=1e-6)


def test_entropy_is_the_cross_entropy_with_itself():
    np.testing.assert_allclose(gaussian.entropy(Q[1]), gaussian.cross_entropy(*Q, *Q), rtol=1e-6)


@pytest.mark.parametrize("levels", [2, 17, 256])
@pytest.mark.parametrize("std", [1e-5, 1e-3, 0.05, 0.7])
def test_level_probabilities_sum_to_one(levels, std):
    means = jnp.linspace(-1.2, 1.2, 41)[:, None]
    level = jnp.arange(levels)
    log_p = gaussian.discretised_log_likelihood(level, means, 2 * np.log(std), levels)
    np.testing.assert_allclose(jnp.exp(log_p).sum(-1), 1.0, atol=1e-6)


def test_level_probability_equals_the_exact_integral():
    levels, mean, std = 17, 0.13, 0.08
    edges = np.concatenate([[-np.inf], (2 * np.arange(1, 17) - 1) / 16 - 1, [np.inf]])
    z = (edges - mean) / std
    # float64 differences, each taken in the tail that keeps its digits.
    left, right = np.diff(stats.norm.cdf(z)), -np.diff(stats.norm.sf(z))
    expected = np.log(np.where(z[1:] < 0, left, right))
    log_p = gaussian.discretised_log_likelihood(jnp.arange(17), mean, 2 * np.log(std), levels)
    np.testing.assert_allclose(log_p, expected, rtol=2e-5, atol=2e-6)


def test_likelihood_and_gradients_stay_finite_in_the_tails():
    def total(mean, log_var):
        return gaussian.discretised_log_likelihood(jnp.arange(17), mean, log_var, 17).sum()

    for mean in (-5.0, -1.0, 0.0, 1.0, 5.0):
        for std in (1e-5, 1e-3, 1.0, 10.0):
            value, grads = jax.value_and_grad(total, argnums=(0, 1))(mean, 2 * np.log(std))
            assert np.isfinite(value), (mean, std)
            assert np.all(np.isfinite(grads)), (mean, std)


def test_bits_per_dim_of_uniform_levels_is_their_log():
    np.testing.assert_allclose(gaussian.bits_per_dim(64 * np.log(17.0), 64), np.log2(17.0))


def test_mirror_images_have_one_probability():
    """p(level | mean) = p(L - 1 - level | -mean), to the last digits of every bin."""
    level, mean = jnp.arange(17), jnp.linspace(-1.3, 1.3, 12)[:, None]
    for std in (1e-2, 0.3, 5.0):
        log_var = 2 * np.log(std)
        log_p = gaussian.discretised_log_likelihood(level, mean, log_var, 17)
        mirrored = gaussian.discretised_log_likelihood(16 - level, -mean, log_var, 17)
        np.testing.assert_allclose(log_p, mirrored, rtol=5e-7)
