"""Laws of schedules whose last step is pure noise (Lin et al. 2023)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toys import (
    COUNT,
    GAUSSIAN,
    MEAN,
    MIXED,
    MIXTURE,
    STOCHASTIC,
    VAR,
    keys_of,
    ks_distance,
    make,
    ordinary,
)

from diffusion_jax.certification.sampler import gaussian_moments
from diffusion_jax.core import gaussian, schedules
from diffusion_jax.core.moves import descent, moves
from diffusion_jax.core.predictions import denoiser, prediction
from diffusion_jax.core.process import q_marginal, q_posterior, q_sample, q_step
from diffusion_jax.core.schedules import SCHEDULES, zero_terminal
from diffusion_jax.samplers import inversion
from diffusion_jax.samplers.grids import GRIDS, make_grid
from diffusion_jax.samplers.guidance import classifier_free, gradient_guided
from diffusion_jax.samplers.measurement import masked, measured, resampled
from diffusion_jax.samplers.sample import SAMPLERS, sample
from diffusion_jax.truth import exact

pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")

PRESERVING = sorted(set(SCHEDULES) - {"variance_exploding"})
FINE = zero_terminal(schedules.log_snr_linear(1000, 17))
PART = FINE.take(np.append(np.arange(0, 999, 5), 999))
COARSE = zero_terminal(schedules.cosine(60))
METHODS = [*STOCHASTIC, *((name, {}) for name in ("ddim", "heun", "dpmpp_2m", "dpmpp_3m"))]


def finite(tree):
    return all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize("steps", [2, 37, 1000])
@pytest.mark.parametrize("name", PRESERVING)
def test_the_last_step_is_pure_noise_and_the_first_is_kept(name, steps):
    before = ordinary(name, steps)
    after = zero_terminal(before)
    assert (after.signal[-1], after.noise[-1], after.log_snr[-1]) == (0.0, 1.0, -np.inf)
    for table in ("signal", "noise", "log_snr", "time"):
        assert getattr(after, table)[0] == getattr(before, table)[0]
    assert np.all(np.diff(after.log_snr) < 0.0)
    assert np.all(np.diff(after.signal) < 0.0)
    # Algorithm 1 of the paper
    root = before.signal - before.signal[-1]
    root *= before.signal[0] / (before.signal[0] - before.signal[-1])
    np.testing.assert_allclose(after.signal, root, rtol=1e-12)
    np.testing.assert_allclose(after.noise, np.sqrt(1.0 - root**2), rtol=1e-9)
    np.testing.assert_allclose(zero_terminal(after).log_snr, after.log_snr, rtol=1e-10)


@pytest.mark.parametrize("t", [1, 30, 58, 59])
def test_moves_are_bayes_rule_from_pure_noise_too(t):
    """log q(x_t | x_{t-1}) + log q(x_{t-1} | x0) - log q(x_t | x0), pointwise."""

    def log_q(x, q):
        return gaussian.log_density(x, q.mean, jnp.log(q.var))

    with jax.enable_x64(True):
        x0, eps, x = jax.random.normal(jax.random.key(0), (3, 50, 1), jnp.float64)
        t = jnp.full(50, t)
        xt = q_sample(COARSE, x0, t, eps)
        bayes = log_q(xt, q_step(COARSE, x, t)) + log_q(x, q_marginal(COARSE, x0, t - 1))
        bayes -= log_q(xt, q_marginal(COARSE, x0, t))
        np.testing.assert_allclose(log_q(x, q_posterior(COARSE, x0, xt, t)), bayes, rtol=1e-9)


def test_moves_from_pure_noise_are_the_limit_of_vanishing_signal():
    log_snr = COARSE.log_snr.copy()
    log_snr[-1] = -60.0
    nearly, t = schedules.from_log_snr(log_snr), np.full(59, 59)
    exactly, limit = (moves(schedule, t, np.arange(-1, 58)) for schedule in (COARSE, nearly))
    for name in ("x0_weight", "xt_weight", "posterior_var", "forward_var"):
        np.testing.assert_allclose(getattr(exactly, name), getattr(limit, name), atol=1e-11)
    assert np.all(exactly.xt_weight == 0.0)


@pytest.mark.parametrize("schedule", [COARSE, zero_terminal(schedules.linear(1000))])
@pytest.mark.parametrize("name", GRIDS)
def test_grids_start_from_pure_noise_and_are_finite_elsewhere(name, schedule):
    for steps in (1, 2, 3, 7, schedule.steps):
        grid = make_grid(name, schedule, steps)
        assert grid.steps == steps
        assert (grid.log_snr[-1], grid.signal[-1]) == (-np.inf, 0.0)
        assert grid.time[-1] == schedule.steps - 1
        assert finite(grid.log_snr[:-1])
        assert np.all(np.diff(grid.log_snr) < 0.0)
        assert np.all(np.diff(grid.time) > 0.0)
        if steps > 1:
            np.testing.assert_allclose(grid.log_snr[0], schedule.log_snr[0], rtol=1e-12)
        for method in SAMPLERS:
            for sampler in (make(method), *(resampled(make(method), n, 2) for n in (1, 3))):
                points, rows = sampler.plan(grid, descent(grid))
                assert finite((rows, points.signal, points.noise, points.time)), method
                assert np.all(np.isfinite(points.log_snr) | (points.signal == 0.0))


@pytest.mark.parametrize("name", GRIDS)
def test_churn_raises_no_noise_beyond_the_last_step_with_signal(name):
    """And every network call is at the level that its x has."""
    grid = make_grid(name, FINE, 300)
    points, rows = make("edm").plan(grid, descent(grid))
    assert points.log_snr[np.isfinite(points.log_snr)].min() >= FINE.log_snr[-2]
    called = rows.table.t[1:]
    np.testing.assert_allclose(points.signal[called], rows.signal[:-1], rtol=1e-12)
    np.testing.assert_allclose(points.noise[called], rows.noise[:-1], rtol=1e-12)


@pytest.mark.parametrize(("name", "arguments"), METHODS)
def test_every_method_reproduces_the_data(name, arguments):
    """Gaussian data, in closed form; the same tolerances as for schedules that end with signal."""
    mean, var = gaussian_moments(make(name, **arguments).plan(FINE, descent(FINE)), 1.0)
    assert abs(mean - MEAN) < 1e-5
    assert abs(var / VAR - 1.0) < (0.12 if name == "langevin" else 0.02)


@pytest.mark.parametrize(("name", "arguments"), METHODS)
def test_samples_follow_the_closed_form(name, arguments):
    sampler = make(name, **arguments)
    x = jax.jit(lambda: sample(sampler, GAUSSIAN, keys_of(COUNT), (1,), COARSE))()
    mean, var = gaussian_moments(sampler.plan(COARSE, descent(COARSE)), 1.0)
    assert abs(float(x.mean()) - mean) < 4.0 * np.sqrt(var / COUNT)
    assert abs(float(x.var()) / var - 1.0) < 4.0 * np.sqrt(2.0 / COUNT)


@pytest.mark.parametrize("name", ["ancestral", "edm", "heun", "dpmpp_2m", "dpmpp_3m"])
def test_a_mixture_returns(name):
    x = jax.jit(lambda: sample(make(name), MIXED, keys_of(COUNT), (2,), PART))()
    assert ks_distance(x) < 0.02


@pytest.mark.parametrize(
    ("name", "low", "high"), [("ddim", 0.9, 1.1), ("heun", 1.8, 2.2), ("dpmpp_2m", 1.8, 2.2)]
)
def test_order_of_convergence_in_even_time(name, low, high):
    """Of the variance of Gaussian data, on parts of one schedule."""
    schedule = zero_terminal(schedules.cosine(3201))

    def var(name, steps):
        grid = make_grid("uniform", schedule, steps)
        return gaussian_moments(make(name).plan(grid, descent(grid)), 1.0)[1]

    truth = var("heun", 3201)
    errors = [abs(var(name, steps) - truth) for steps in (51, 101, 201)]
    assert low < -np.diff(np.log2(errors)).mean() < high


def test_resampling_and_measurements_start_anew_from_pure_noise():
    free = resampled(make("ancestral"), jump=20, repeats=2)
    x = jax.jit(lambda: sample(free, GAUSSIAN, keys_of(COUNT), (1,), PART))()
    assert abs(float(x.mean()) - MEAN) < 0.01
    assert abs(float(x.var()) / VAR - 1.0) < 0.1
    known = jnp.array([0.5, 0.0])
    for name in ("ancestral", "edm", "langevin"):
        held = resampled(measured(make(name), masked([1.0, 0.0]), known), jump=1, repeats=2)
        x = sample(held, MIXED, keys_of(20), (2,), COARSE.take(np.arange(3, 60, 7)))
        assert finite(x), name


def test_guidance_by_class_is_exact_on_pure_noise():
    """Classes of means -0.5 and 0.5, none in between: scale s predicts s times the class's mean."""
    means, x, t = jnp.array([-0.5, 0.5, 0.0]), jnp.ones((2, 1, 1, 1)), jnp.full(2, 59)

    def network(x, time, label):
        return meaning.target(means[label].reshape(-1, 1, 1, 1), x, jnp.full(len(x), 59))

    for name in ("x0", "v"):
        meaning = prediction(name, COARSE)
        guided = classifier_free(network, jnp.array([0, 1]), 2, 3.0, (0.0, 60.0))
        denoised = denoiser(guided, meaning, clip=False)(x, t)
        np.testing.assert_allclose(denoised.x0.ravel(), [-1.5, 1.5], rtol=1e-6)
        np.testing.assert_allclose(denoised.eps, x, rtol=1e-6)


def test_gradient_guidance_leaves_pure_noise_alone():
    """Elsewhere a log-likelihood c x0 turns N(mean, v) into N(mean + c v, v)."""

    def tilted(points):
        return gradient_guided(GAUSSIAN(points), points, lambda x0: 2.0 * x0.sum(axis=1))

    @jax.jit
    def estimates(x, t):
        ends = [sample(make("ddim"), on, keys_of(9), (1,), PART) for on in (GAUSSIAN, tilted)]
        return GAUSSIAN(COARSE)(x, t), tilted(COARSE)(x, t), *ends

    plain, steered, ending, shifted = estimates(jnp.ones((5, 1)), jnp.full(5, 59))
    np.testing.assert_array_equal(steered.x0, plain.x0)
    np.testing.assert_array_equal(steered.eps, plain.eps)
    np.testing.assert_allclose(shifted - ending, 2.0 * VAR, rtol=0.03)


def test_inversion_goes_to_pure_noise_and_back():
    points = exact.sample(MIXTURE, jax.random.key(7), 200)
    noise = jax.jit(lambda x: inversion.encode(MIXED, PART, x))(points)
    back = jax.jit(lambda x: inversion.decode(MIXED, PART, x))(noise)
    assert float(jnp.sqrt(jnp.mean((back - points) ** 2))) < 0.02
    assert abs(float(noise.std()) - 1.0) < 0.1
