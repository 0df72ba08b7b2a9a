"""Laws of the forward process and its posterior."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.core import gaussian, moves, schedules
from diffusion_jax.core.process import (
    VARIANCES,
    p_mean_variance,
    q_marginal,
    q_posterior,
    q_sample,
    q_step,
    reverse_process,
)
from diffusion_jax.truth import exact

SCHEDULE = schedules.linear(20, 1e-2, 0.3)
X0 = jax.random.uniform(jax.random.key(0), (3, 2, 2, 1), minval=-1.0, maxval=1.0)


def log_density(x, distribution):
    return gaussian.log_density(x, distribution.mean, jnp.log(distribution.var))


def test_repeated_steps_equal_the_closed_form():
    mean, var = X0, jnp.zeros(())
    for t in range(SCHEDULE.steps):
        at_t = jnp.full(3, t)
        step = q_step(SCHEDULE, mean, at_t)
        alpha = (step.mean / mean)[0, 0, 0, 0] ** 2
        mean, var = step.mean, alpha * var + step.var
        marginal = q_marginal(SCHEDULE, X0, at_t)
        np.testing.assert_allclose(mean, marginal.mean, rtol=1e-5)
        np.testing.assert_allclose(var, marginal.var, rtol=1e-5)


def test_samples_have_the_marginal_moments():
    t = jnp.full(100_000, 7)
    eps = jax.random.normal(jax.random.key(1), t.shape)
    xt = q_sample(SCHEDULE, jnp.full(t.shape, 0.4), t, eps)
    error = 4.0 / np.sqrt(len(t))
    assert abs(xt.mean() - 0.4 * SCHEDULE.signal[7]) < error * SCHEDULE.noise[7]
    assert abs(xt.var() / SCHEDULE.noise[7] ** 2 - 1.0) < error * np.sqrt(2.0)


@pytest.mark.parametrize("t", [1, 2, 10, 19])
def test_posterior_is_bayes_rule(t):
    """log q(x_t | x_{t-1}) + log q(x_{t-1} | x0) - log q(x_t | x0), pointwise."""
    at_t = jnp.full(3, t)
    xt = q_sample(SCHEDULE, X0, at_t, jax.random.normal(jax.random.key(2), X0.shape))
    posterior = q_posterior(SCHEDULE, X0, xt, at_t)
    for shift in (-1.0, 0.3, 2.0):
        x = posterior.mean + shift * jnp.sqrt(posterior.var)
        bayes = (
            log_density(xt, q_step(SCHEDULE, x, at_t))
            + log_density(x, q_marginal(SCHEDULE, X0, at_t - 1))
            - log_density(xt, q_marginal(SCHEDULE, X0, at_t))
        )
        np.testing.assert_allclose(log_density(x, posterior), bayes, atol=3e-5)


def test_posterior_of_the_first_step_is_the_image_itself():
    first = jnp.zeros(3, jnp.int32)
    xt = q_sample(SCHEDULE, X0, first, jax.random.normal(jax.random.key(3), X0.shape))
    mean, var = q_posterior(SCHEDULE, X0, xt, first)
    np.testing.assert_array_equal(mean, X0)
    np.testing.assert_array_equal(var, 0.0)


@pytest.mark.parametrize("name", VARIANCES)
def test_model_variances_start_between_their_bounds(name):
    """With the network's variance output at zero, where it starts."""
    row = moves.single_steps(SCHEDULE)
    var = np.exp(VARIANCES[name](row).offset)
    if name == "learned_log_variance":  # as published
        np.testing.assert_array_equal(var, 1.0)
        return
    assert np.all(var[1:] >= row.posterior_var[1:] * (1.0 - 1e-12))
    assert np.all(var <= row.forward_var * (1.0 + 1e-12))


def test_a_trajectory_factorises_forwards_and_backwards():
    """sum log q(x_t | x_{t-1}) = log q(x_T | x0) + sum log q(x_{t-1} | x_t, x0), any trajectory."""
    with jax.enable_x64(True):
        steps = jax.random.normal(jax.random.key(7), (SCHEDULE.steps, 3, 2, 2, 1), jnp.float64)
        path = [jnp.float64(X0)]
        for t in range(SCHEDULE.steps):
            at_t = jnp.full(3, t)
            step = q_step(SCHEDULE, path[-1], at_t)
            path.append(step.mean + 1.3 * jnp.sqrt(step.var) * steps[t])
        last = jnp.full(3, SCHEDULE.steps - 1)
        forwards = sum(
            log_density(path[t + 1], q_step(SCHEDULE, path[t], jnp.full(3, t)))
            for t in range(SCHEDULE.steps)
        )
        backwards = log_density(path[-1], q_marginal(SCHEDULE, path[0], last)) + sum(
            log_density(path[t], q_posterior(SCHEDULE, path[0], path[t + 1], jnp.full(3, t)))
            for t in range(1, SCHEDULE.steps)
        )
        np.testing.assert_allclose(forwards, backwards, rtol=1e-10)


def test_reverse_step_of_a_point_is_the_posterior():
    """Data of one point: the exact denoiser knows x0, so p equals q(x_{t-1} | x_t, x0)."""
    at_t = jnp.array([1, 5, 19])
    denoise = exact.denoiser(SCHEDULE, exact.gaussian(0.3, 0.0))
    x0 = jnp.full_like(X0, 0.3)
    xt = q_sample(SCHEDULE, x0, at_t, jax.random.normal(jax.random.key(4), X0.shape))
    p = p_mean_variance(reverse_process(SCHEDULE, "fixed_small"), denoise, xt, at_t)
    q = q_posterior(SCHEDULE, x0, xt, at_t)
    np.testing.assert_allclose(p.mean, q.mean, rtol=1e-6)
    np.testing.assert_allclose(p.var, q.var, rtol=1e-6)


@pytest.mark.parametrize("lead", [(), (5,), (2, 5)])
def test_any_leading_shape(lead):
    t = jax.random.randint(jax.random.key(5), lead, 0, SCHEDULE.steps)
    x = jax.random.normal(jax.random.key(6), (*lead, 2, 2, 3))
    together = q_sample(SCHEDULE, x, t, 2.0 * x)
    flat = q_sample(SCHEDULE, x.reshape(-1, 2, 2, 3), t.reshape(-1), 2.0 * x.reshape(-1, 2, 2, 3))
    np.testing.assert_array_equal(together.reshape(flat.shape), flat)
    assert q_posterior(SCHEDULE, x, x, t).mean.shape == x.shape


def test_jit_vmap_and_gradients():
    t = jnp.arange(3)
    plain = q_posterior(SCHEDULE, X0, X0, t).mean
    np.testing.assert_array_equal(plain, jax.jit(lambda x: q_posterior(SCHEDULE, x, x, t).mean)(X0))
    mapped = jax.vmap(lambda x, t: q_posterior(SCHEDULE, x, x, t).mean)(X0, t)
    np.testing.assert_array_equal(plain, mapped)
    grads = jax.grad(lambda x: q_sample(SCHEDULE, x, t, X0).sum())(X0)
    expected = np.broadcast_to(SCHEDULE.signal[:3, None, None, None], X0.shape)
    np.testing.assert_allclose(grads, expected, rtol=1e-6)


def test_the_clipped_decoder_takes_the_second_of_at_least_two_steps():
    schedule = schedules.linear(2, 0.1, 0.2)
    offset = reverse_process(schedule, "fixed_small", "clipped").log_var.offset
    np.testing.assert_allclose(np.exp(offset), 0.1 * 0.2 / (1.0 - 0.9 * 0.8), rtol=1e-12)
    with pytest.raises(ValueError, match="'clipped' needs at least 2 steps"):
        reverse_process(schedules.linear(1), "fixed_small", "clipped")
