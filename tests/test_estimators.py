"""Whole trajectories, against the sum of the terms and against a model whose p(x0) is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from diffusion_jax.core import estimators, schedules
from diffusion_jax.core.arrays import lookup
from diffusion_jax.core.bound import bound_nats
from diffusion_jax.core.predictions import Denoised
from diffusion_jax.core.process import VARIANCES, is_learned, reverse_process
from diffusion_jax.truth import exact

DATA = exact.mixture([0.4, 0.6], [[-0.6], [0.5]], [[[0.02]], [[0.05]]])


class Affine:
    """A 1-D model x0_hat = slope x_t + offset, wrong on purpose, whose p(x0) is a Gaussian."""

    def __init__(self, schedule, variance="fixed_large"):
        self.schedule, steps = schedule, schedule.steps
        signal, noise = self.schedule.signal, self.schedule.noise
        self.slope = 0.8 * signal * 0.3 / (signal**2 * 0.3 + noise**2)
        self.offset = 0.1 * np.ones(steps)
        self.reverse = reverse_process(self.schedule, variance)
        self.mean, self.var = exact.affine_marginal(self.reverse, self.slope, self.offset)

    def denoise(self, x, t):
        x0 = lookup(self.slope, t, x) * x + lookup(self.offset, t, x)
        eps = (x - lookup(self.schedule.signal, t, x) * x0) / lookup(self.schedule.noise, t, x)
        return Denoised(x0, eps)

    def nats(self, x0):
        return -stats.norm.logpdf(x0, self.mean, np.sqrt(self.var))

    def trajectories(self, x0, count, seed=0):
        """`[count]` draws of the trajectory bound for one number x0."""
        keys = jax.random.split(jax.random.key(seed), count)
        x0 = jnp.full((count, 1), x0)
        return estimators.trajectory_nats(self.reverse, self.denoise, None, keys, x0)


@pytest.mark.parametrize("variance", VARIANCES)
@pytest.mark.parametrize("levels", [None, 17])
def test_trajectories_and_terms_give_one_bound(variance, levels):
    """E[log q(x_{1:T} | x0) - log p(x_{0:T})] = L_T + sum L_{t-1} + L_0, learned variances too."""
    schedule, count = schedules.log_snr_linear(40, 17), 8000
    reverse, learned = reverse_process(schedule, variance), is_learned(variance)
    x0 = jnp.round(8 * exact.sample(DATA, jax.random.key(0), count)) / 8
    ideal = exact.denoiser(schedule, DATA)

    def denoise(x, t):
        denoised = ideal(x, t)
        return denoised._replace(var_output=0.2 * jnp.cos(x)) if learned else denoised

    keys = jax.random.split(jax.random.key(1), count)
    terms = bound_nats(reverse, denoise, levels, keys, x0).total
    keys = jax.random.split(jax.random.key(2), count)
    whole = estimators.trajectory_nats(reverse, denoise, levels, keys, x0)
    difference = terms - whole
    assert abs(difference.mean()) < 4.0 * difference.std() / np.sqrt(count)
    # Shifting the variance shifts both alike, and visibly: the test can tell a wrong bound.
    assert difference.std() / np.sqrt(count) < 0.05


def linear(steps):
    return schedules.linear(steps, 0.02, 0.6)


def exploding(steps):
    """The prior is as wide as the last noise level, not one."""
    return schedules.variance_exploding(steps, 0.3, 2.0)


@pytest.mark.parametrize("x0", [-0.7, 0.1, 0.9])
def test_the_bound_lies_above_and_importance_weighting_closes_in(x0):
    """E L_1 >= E L_10 >= E L_100 >= -log p(x0), the model's own, known in closed form."""
    model = Affine(linear(8))
    nats = model.trajectories(x0, 200_000).reshape(100, -1)
    truth, bounds, errors = model.nats(x0), [], []
    for k in (1, 10, 100):
        groups = estimators.importance_weighted_nats(nats.reshape(k, -1))
        bounds.append(float(groups.mean()))
        errors.append(float(groups.std()) / np.sqrt(groups.size))
    assert bounds[0] > bounds[1] > bounds[2] > truth - 4.0 * errors[2]
    assert bounds[2] - truth < 0.3 * (bounds[0] - truth)


@pytest.mark.parametrize("path", [linear, exploding])
def test_weights_average_to_the_models_likelihood(path):
    """E exp(-trajectory_nats) = p(x0): importance sampling is unbiased."""
    model, x0 = Affine(path(8)), 0.3
    log_mean, error = estimators.log_mean_exp(-model.trajectories(x0, 200_000))
    assert abs(np.expm1(float(log_mean) + model.nats(x0))) < 4.0 * float(error)
    assert float(error) < 0.01


@pytest.mark.parametrize("path", [linear, exploding])
def test_the_naive_estimator_converges_to_the_truth(path):
    model, x0 = Affine(path(3)), 0.3
    keys = jax.random.split(jax.random.key(3), 200_000)
    values = estimators.naive_log_likelihoods(
        model.reverse, model.denoise, None, keys, jnp.full(1, x0)
    )
    log_mean, error = estimators.log_mean_exp(values)
    assert abs(np.expm1(float(log_mean) + model.nats(x0))) < 4.0 * float(error)


def test_the_naive_estimators_variance_grows_with_the_number_of_steps():
    """The sharper the decoder, the rarer a chain that ends near x0: on one log-SNR path."""
    spread = []
    for steps in (2, 8, 32):
        schedule = schedules.log_snr_linear(steps, 17, log_snr_max=1.0 + steps**0.5)
        reverse = reverse_process(schedule, "fixed_small")
        keys = jax.random.split(jax.random.key(4), 50_000)
        denoise = exact.denoiser(schedule, exact.gaussian(0.1, 0.2))
        values = estimators.naive_log_likelihoods(reverse, denoise, None, keys, jnp.full(1, 0.3))
        spread.append(float(estimators.log_mean_exp(values)[1]))
    assert spread[0] < spread[1] < spread[2]
    assert spread[2] > 2.0 * spread[0]


def test_log_mean_exp_of_known_numbers():
    log_mean, error = estimators.log_mean_exp(jnp.log(jnp.array([1.0, 3.0])) - 500.0)
    np.testing.assert_allclose(log_mean, np.log(2.0) - 500.0, rtol=1e-6)
    np.testing.assert_allclose(error, np.sqrt(2.0) / 2.0 / np.sqrt(2.0), rtol=1e-4)


def test_one_trajectory_weighted_is_the_bound_itself():
    nats = jnp.array([[3.0, 5.0]])
    np.testing.assert_allclose(estimators.importance_weighted_nats(nats), nats[0], rtol=1e-6)
