"""All predictions are the same knowledge: x_t and one of them give every other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.core import exact, schedules
from diffusion_jax.core.predictions import PREDICTIONS, Denoised, denoiser, prediction
from diffusion_jax.core.process import q_posterior, q_sample

STEPS = 50
SCHEDULE = schedules.log_snr_linear(STEPS, 17)
T = jnp.arange(STEPS)
X0 = jax.random.uniform(jax.random.key(0), (STEPS, 2, 2, 1), minval=-1.0, maxval=1.0)
EPS = jax.random.normal(jax.random.key(1), X0.shape)
XT = q_sample(SCHEDULE, X0, T, EPS)


@pytest.fixture(params=PREDICTIONS)
def meaning(request):
    return prediction(request.param, SCHEDULE)


def test_round_trip_within_the_digits_that_d_leaves(meaning):
    y = meaning.target(X0, EPS, T)
    # Targets are as large as a and b, and rounded accordingly.
    size = np.maximum(1.0, np.maximum(np.abs(meaning.a), np.abs(meaning.b)))
    bound = (1e-6 * size / np.abs(meaning.d))[:, None, None, None]
    assert np.all(np.abs(meaning.to_x0(y, XT, T) - X0) < bound)
    assert np.all(np.abs(meaning.to_eps(y, XT, T) - EPS) < bound)


@pytest.mark.parametrize("other", PREDICTIONS)
def test_every_pair_converts(meaning, other):
    """Through x0 and eps, any prediction becomes any other (early half, where all keep digits)."""
    t = T[1 : STEPS // 2]
    x0, eps, xt = (a[1 : STEPS // 2] for a in (X0, EPS, XT))
    y = meaning.target(x0, eps, t)
    target = prediction(other, SCHEDULE).target(x0, eps, t)
    converted = prediction(other, SCHEDULE).target(
        meaning.to_x0(y, xt, t), meaning.to_eps(y, xt, t), t
    )
    scale = np.abs(target).max()
    np.testing.assert_allclose(converted, target, atol=3e-4 * scale)


def test_mean_is_the_posterior_mean():
    mean = prediction("mean", SCHEDULE).target(X0, EPS, T)
    np.testing.assert_allclose(mean, q_posterior(SCHEDULE, X0, XT, T).mean, atol=2e-6)


def test_mean_from_eps_is_the_known_formula():
    """(x_t - beta_t / sqrt(1 - ab_t) eps) / sqrt(alpha_t), Ho et al. 2020, eq. 11."""
    beta = schedules.single_steps(SCHEDULE).forward_var[:, None, None, None]
    noise = SCHEDULE.noise[:, None, None, None]
    expected = (XT - beta / noise * EPS) / np.sqrt(1.0 - beta)
    # At t = 0 the formula divides a small difference by a small number in float32.
    mean = q_posterior(SCHEDULE, X0, XT, T).mean
    np.testing.assert_allclose(mean, expected, atol=5e-6)


def test_score_is_the_gradient_of_the_conditional_density():
    def log_q(xt, x0, t):
        var = SCHEDULE.noise[t] ** 2
        return -0.5 * jnp.sum((xt - SCHEDULE.signal[t] * x0) ** 2) / var

    score = prediction("score", SCHEDULE).target(X0, EPS, T)
    for t in (0, 10, STEPS - 1):
        expected = jax.grad(log_q)(XT[t], X0[t], t)
        np.testing.assert_allclose(score[t], expected, rtol=2e-3, atol=1e-4)


def test_marginal_score_is_minus_mean_noise_over_noise():
    """For Gaussian data q(x_t) is known, so grad log q(x_t) = -E[eps | x_t] / noise can be seen."""
    mean, var, t = 0.2, 0.3, 20
    signal, noise = SCHEDULE.signal[t], SCHEDULE.noise[t]
    x = jnp.linspace(-2.0, 2.0, 9)[:, None]
    _, eps = exact.gaussian_denoiser(SCHEDULE, mean, var)(x, jnp.full(9, t))
    score = -(x - signal * mean) / (signal**2 * var + noise**2)
    np.testing.assert_allclose(-eps / noise, score, rtol=1e-5, atol=1e-6)


def test_a_perfect_network_denoises_perfectly(meaning):
    denoise = denoiser(lambda x, t: meaning.target(X0, EPS, t), meaning, clip=False)
    x0, eps = denoise(XT, T)
    early = slice(0, STEPS // 2)
    np.testing.assert_allclose(x0[early], X0[early], atol=2e-4)
    np.testing.assert_allclose(eps[early], EPS[early], atol=2e-3)


def test_after_clipping_the_noise_fits_the_image():
    meaning = prediction("eps", SCHEDULE)
    x0, eps = denoiser(lambda x, t: 3.0 * EPS, meaning, clip=True)(XT, T)
    assert isinstance(denoiser(lambda x, t: EPS, meaning, clip=True)(XT, T), Denoised)
    assert float(jnp.abs(x0).max()) == 1.0
    np.testing.assert_allclose(q_sample(SCHEDULE, x0, T, eps), XT, atol=1e-5)


def test_an_undetermined_step_is_refused():
    vanished = schedules.Schedule(np.array([0.0, -np.inf]), np.array([0.7, 0.0]), np.ones(2))
    with pytest.raises(ValueError, match="does not determine x0 at step t = 1"):
        prediction("eps", vanished)
