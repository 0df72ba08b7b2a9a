"""Laws of the training loss and of how t is drawn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.core import bound, schedules
from diffusion_jax.core.objective import TIMESTEPS, WEIGHTS, training_loss
from diffusion_jax.core.predictions import PREDICTIONS, denoiser, prediction
from diffusion_jax.core.process import q_sample

STEPS = 40
SCHEDULE = schedules.log_snr_linear(STEPS, 17)
T = jnp.arange(STEPS)
X0 = jax.random.uniform(jax.random.key(0), (len(T), 2, 2, 1), minval=-1.0, maxval=1.0)
EPS = jax.random.normal(jax.random.key(1), X0.shape)


X0_HAT = X0 + 0.3 * jax.random.normal(jax.random.key(2), X0.shape)
EPS_HAT = EPS + 0.2 * jax.random.normal(jax.random.key(3), X0.shape)


def wrong_network(meaning):
    """Off in x0 and in the noise, so that every prediction makes a visible error."""
    return lambda x, t: meaning.target(X0_HAT, EPS_HAT, t)


def literal_weights(t):
    """The weights of the squared error of x0, written out once more, in float64."""
    signal, noise = SCHEDULE.signal, SCHEDULE.noise
    snr = np.square(signal / noise)
    # With the posterior's variance; the decoder, t = 0, has the variance of the first noise.
    bound = [0.5 / noise[0] ** 2, *((snr[n - 1] - snr[n]) / 2 for n in range(1, STEPS))]
    return {
        "bound": np.array(bound)[t],
        "snr": snr[t],
        "truncated_snr": np.maximum(snr, 1.0)[t],
        "min_snr": np.minimum(snr, 5.0)[t],
    }


def test_simple_weight_on_eps_is_the_simple_loss():
    meaning = prediction("eps", SCHEDULE)
    loss = training_loss(SCHEDULE, meaning, "simple", lambda x, t: 0.5 * EPS, X0, T, EPS)
    np.testing.assert_allclose(loss, 0.25 * jnp.square(EPS).mean((1, 2, 3)), rtol=1e-6)


@pytest.mark.parametrize("weight", set(WEIGHTS) - {"simple"})
@pytest.mark.parametrize("name", PREDICTIONS)
def test_loss_is_the_weighted_error_of_x0(name, weight):
    meaning = prediction(name, SCHEDULE)
    loss = training_loss(SCHEDULE, meaning, weight, wrong_network(meaning), X0, T, EPS)
    # An error e of the output makes an error of (noise / d) e in x0, here in float64.
    a, b, d, noise = (
        table[T][:, None, None, None] for table in (meaning.a, meaning.b, meaning.d, meaning.noise)
    )
    output_error = a * np.float64(X0_HAT - X0) + b * np.float64(EPS_HAT - EPS)
    x0_error = np.square(noise / d * output_error).mean((1, 2, 3))
    np.testing.assert_allclose(loss, literal_weights(T)[weight] * x0_error, rtol=2e-4)


@pytest.mark.parametrize("name", PREDICTIONS)
def test_simple_weight_is_the_error_of_the_output(name):
    meaning = prediction(name, SCHEDULE)
    loss = training_loss(SCHEDULE, meaning, "simple", wrong_network(meaning), X0, T, EPS)
    error = meaning.target(X0_HAT, EPS_HAT, T) - meaning.target(X0, EPS, T)
    np.testing.assert_allclose(loss, jnp.square(error).mean((1, 2, 3)), rtol=2e-4)


@pytest.mark.parametrize("name", ["eps", "x0", "v"])
def test_bound_weight_is_the_bound(name):
    """With the posterior's variance the weighted loss is the term of the bound, per dimension."""
    meaning = prediction(name, SCHEDULE)
    network = wrong_network(meaning)
    loss = training_loss(SCHEDULE, meaning, "bound", network, X0, T, EPS)
    xt = q_sample(SCHEDULE, X0, T, EPS)
    x0_hat = denoiser(network, meaning, clip=False)(xt, T).x0
    nats = bound.diffusion_nats(SCHEDULE, "fixed_small", X0, x0_hat, T)
    np.testing.assert_allclose(loss[1:], nats[1:] / 4, rtol=2e-3)


@pytest.mark.parametrize("name", TIMESTEPS)
def test_every_t_is_equally_likely(name):
    keys = jax.random.split(jax.random.key(0), 4000)
    draw = jax.vmap(lambda key: TIMESTEPS[name](key, jnp.arange(8), 8, 10))
    counts = np.stack([np.bincount(column, minlength=10) for column in np.asarray(draw(keys)).T])
    assert counts.shape == (8, 10)
    assert np.all(np.abs(counts - 400) < 5 * np.sqrt(400))


def test_stratified_t_covers_the_range_evenly():
    t = np.sort(TIMESTEPS["stratified"](jax.random.key(1), jnp.arange(128), 128, 1000))
    gaps = np.diff(np.append(t, t[0] + 1000))
    assert gaps.min() >= 7
    assert gaps.max() <= 8


@pytest.mark.parametrize("name", TIMESTEPS)
def test_t_of_a_share_is_the_share_of_t(name):
    key, whole = jax.random.key(2), jnp.arange(16)
    together = TIMESTEPS[name](key, whole, 16, 1000)
    shares = [TIMESTEPS[name](key, part, 16, 1000) for part in jnp.split(whole, 4)]
    np.testing.assert_array_equal(together, jnp.concatenate(shares))


def test_stratified_t_estimates_the_loss_with_less_variance():
    """The loss as a smooth function of t: same mean, a small part of the variance."""
    keys = jax.random.split(jax.random.key(3), 2000)

    def estimates(name):
        draw = jax.vmap(lambda key: TIMESTEPS[name](key, jnp.arange(32), 32, 1000))
        return np.square(np.asarray(draw(keys)) / 1000.0).mean(1)

    uniform, stratified = estimates("uniform"), estimates("stratified")
    error = 4.0 * uniform.std() / np.sqrt(len(keys))
    assert abs(uniform.mean() - stratified.mean()) < error
    assert stratified.var() < 0.05 * uniform.var()
