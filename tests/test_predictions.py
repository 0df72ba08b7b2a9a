"""All predictions are the same knowledge: x_t and one of them give every other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.core import moves, schedules
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
    beta = moves.single_steps(SCHEDULE).forward_var[:, None, None, None]
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


def test_a_perfect_network_denoises_perfectly(meaning):
    denoise = denoiser(lambda x, time: meaning.target(X0, EPS, T), meaning, clip=False)
    x0, eps, _ = denoise(XT, T)
    early = slice(0, STEPS // 2)
    np.testing.assert_allclose(x0[early], X0[early], atol=2e-4)
    np.testing.assert_allclose(eps[early], EPS[early], atol=2e-3)


def test_after_clipping_the_noise_fits_the_image():
    meaning = prediction("eps", SCHEDULE)
    x0, eps, _ = denoiser(lambda x, time: 3.0 * EPS, meaning, clip=True)(XT, T)
    assert isinstance(denoiser(lambda x, time: EPS, meaning, clip=True)(XT, T), Denoised)
    assert float(jnp.abs(x0).max()) == 1.0
    np.testing.assert_allclose(q_sample(SCHEDULE, x0, T, eps), XT, atol=1e-5)


@pytest.mark.parametrize("name", PREDICTIONS)
def test_between_the_steps_a_perfect_network_still_denoises(name):
    """On a log-SNR grid times are fractions, and the output's meaning lies between the steps'."""
    schedule = schedules.linear(STEPS)
    grid, t = schedules.uniform_log_snr(schedule, 30), jnp.arange(30)
    known = prediction(name, schedule)
    between, x0, eps = known.on(grid), X0[:30], EPS[:30]
    times = []

    def network(x, time):
        times.append(time)
        return between.target(x0, eps, t)

    denoised = denoiser(network, between, clip=False)(q_sample(grid, x0, t, eps), t)
    np.testing.assert_allclose(denoised.x0[:15], x0[:15], atol=2e-4)
    np.testing.assert_allclose(times[0], grid.time, rtol=1e-6)
    assert np.all(np.diff(grid.time) > 0.0)
    np.testing.assert_array_equal(known.on(schedule).a, known.a)


def test_between_the_steps_meanings_keep_their_formula():
    """The score of ten exploding levels would be 7% off if its table were interpolated."""
    schedule = schedules.variance_exploding(10)
    grid = schedules.uniform_log_snr(schedule, 7)
    np.testing.assert_allclose(prediction("score", schedule).on(grid).b, -1.0 / grid.noise)
    between = prediction("v", schedule).on(grid)
    np.testing.assert_allclose(between.a, -grid.noise)
    np.testing.assert_allclose(between.b, grid.signal)


def test_twice_the_channels_hold_the_variance():
    meaning = prediction("x0", SCHEDULE)
    denoised = denoiser(lambda x, time: jnp.concatenate([X0, EPS], -1), meaning, clip=False)(XT, T)
    np.testing.assert_allclose(denoised.x0, X0, atol=1e-6)
    np.testing.assert_array_equal(denoised.var_output, EPS)


def test_an_undetermined_step_is_refused():
    ends = np.array([0.0, -np.inf]), np.array([0.7, 0.0]), np.ones(2)
    vanished = schedules.Schedule(*ends, np.arange(2.0), schedules.VARIANCE_PRESERVING)
    with pytest.raises(ValueError, match="does not determine x0 at step t = 1"):
        prediction("eps", vanished)


@pytest.mark.parametrize("schedule", [SCHEDULE, schedules.variance_exploding(STEPS)])
def test_networks_see_images_of_unit_variance(schedule):
    """x_t over sqrt(signal^2 + noise^2), and the step as a time."""
    xt, seen = q_sample(schedule, X0, T, EPS), []
    meaning = prediction("eps", schedule)
    denoiser(lambda *inputs: seen.append(inputs) or EPS, meaning, clip=False)(xt, T)
    ((x, time),) = seen
    scale = np.sqrt(schedule.signal**2 + schedule.noise**2)[:, None, None, None]
    np.testing.assert_allclose(x, xt / scale, rtol=1e-6)
    np.testing.assert_array_equal(time, T)
