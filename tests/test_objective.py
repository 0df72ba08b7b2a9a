"""Laws of the training losses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.core import bound, schedules
from diffusion_jax.core.objective import BOUND_IN_HYBRID, WEIGHTS, Model, training_loss
from diffusion_jax.core.predictions import PREDICTIONS, denoiser, prediction
from diffusion_jax.core.process import VARIANCES, is_learned, q_sample, reverse_process

STEPS, LEVELS = 40, 17
SCHEDULE = schedules.log_snr_linear(STEPS, LEVELS)
T = jnp.arange(STEPS)
X0 = jax.random.randint(jax.random.key(0), (len(T), 2, 2, 1), 0, LEVELS) * 2.0 / (LEVELS - 1) - 1.0
EPS = jax.random.normal(jax.random.key(1), X0.shape)


X0_HAT = X0 + 0.3 * jax.random.normal(jax.random.key(2), X0.shape)
EPS_HAT = EPS + 0.2 * jax.random.normal(jax.random.key(3), X0.shape)


def wrong_network(meaning):
    """Off in x0 and in the noise, so that every prediction makes a visible error."""
    return lambda x, time: meaning.target(X0_HAT, EPS_HAT, T)


def loss_of(meaning, weight, network, loss="weighted", variance="fixed_small"):
    model = Model(meaning, reverse_process(SCHEDULE, variance), weight, LEVELS)
    return training_loss(model, loss, network, X0, T, EPS)


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
    loss = loss_of(meaning, "simple", lambda x, time: 0.5 * EPS)
    np.testing.assert_allclose(loss, 0.25 * jnp.square(EPS).mean((1, 2, 3)), rtol=1e-6)


@pytest.mark.parametrize("weight", sorted(set(WEIGHTS) - {"simple"}))
@pytest.mark.parametrize("name", PREDICTIONS)
def test_loss_is_the_weighted_error_of_x0(name, weight):
    meaning = prediction(name, SCHEDULE)
    loss = loss_of(meaning, weight, wrong_network(meaning))
    # An error e of the output makes an error of (noise / d) e in x0, here in float64.
    a, b, d, noise = (
        table[T][:, None, None, None] for table in (meaning.a, meaning.b, meaning.d, SCHEDULE.noise)
    )
    output_error = a * np.float64(X0_HAT - X0) + b * np.float64(EPS_HAT - EPS)
    x0_error = np.square(noise / d * output_error).mean((1, 2, 3))
    np.testing.assert_allclose(loss, literal_weights(T)[weight] * x0_error, rtol=2e-4)


@pytest.mark.parametrize("name", PREDICTIONS)
def test_simple_weight_is_the_error_of_the_output(name):
    meaning = prediction(name, SCHEDULE)
    loss = loss_of(meaning, "simple", wrong_network(meaning))
    error = meaning.target(X0_HAT, EPS_HAT, T) - meaning.target(X0, EPS, T)
    np.testing.assert_allclose(loss, jnp.square(error).mean((1, 2, 3)), rtol=2e-4)


@pytest.mark.parametrize("name", ["eps", "x0", "v"])
def test_bound_weight_is_the_bound(name):
    """With the posterior's variance the weighted loss is the term of the bound, per dimension."""
    meaning = prediction(name, SCHEDULE)
    network = wrong_network(meaning)
    loss = loss_of(meaning, "bound", network)
    xt = q_sample(SCHEDULE, X0, T, EPS)
    denoised = denoiser(network, meaning, clip=False)(xt, T)
    reverse = reverse_process(SCHEDULE, "fixed_small")
    nats = bound.diffusion_nats(reverse, denoised, X0, EPS, T)
    np.testing.assert_allclose(loss[1:], nats[1:] / 4, rtol=2e-3)


def both(meaning):
    """A wrong prediction, and a variance output beside it."""
    prediction_of = wrong_network(meaning)
    return lambda x, time: jnp.concatenate([prediction_of(x, time), 0.3 * jnp.sin(9.0 * X0)], -1)


@pytest.mark.parametrize("variance", VARIANCES)
@pytest.mark.parametrize("name", ["eps", "x0", "v", "mean"])
def test_bound_loss_is_the_bound_in_bits_per_dim(name, variance):
    """The mean over t of the loss is the sum of the bound's terms, prior aside, per dimension."""
    meaning = prediction(name, SCHEDULE)
    network = both(meaning) if is_learned(variance) else wrong_network(meaning)
    loss = loss_of(meaning, "simple", network, "bound", variance)
    reverse, xt = reverse_process(SCHEDULE, variance), q_sample(SCHEDULE, X0, T, EPS)
    denoised = denoiser(network, meaning, clip=False)(xt, T)
    nats = bound.term_nats(reverse, denoised, X0, EPS, T, LEVELS)
    np.testing.assert_allclose(loss.mean(), nats.sum() / 4 / np.log(2.0), rtol=1e-5)


def test_bound_loss_has_one_scale_for_all_predictions():
    """The same knowledge costs the same, whatever the network's output means."""

    def network(meaning):
        return lambda x, time: meaning.target(X0_HAT, (x - signal * X0_HAT) / noise, T)

    signal, noise = (a[:, None, None, None] for a in (SCHEDULE.signal, SCHEDULE.noise))
    losses = [
        loss_of(prediction(name, SCHEDULE), "simple", network(prediction(name, SCHEDULE)), "bound")
        for name in PREDICTIONS
    ]
    for other in losses[1:]:
        np.testing.assert_allclose(other[: STEPS // 2], losses[0][: STEPS // 2], rtol=2e-2)
        np.testing.assert_allclose(other.mean(), losses[0].mean(), rtol=1e-3)


def test_hybrid_teaches_the_variance_by_the_bound_and_the_mean_by_the_error():
    meaning = prediction("eps", SCHEDULE)

    def total(outputs, loss):
        parts = jnp.concatenate(outputs, -1)
        return loss_of(meaning, "simple", lambda x, time: parts, loss, "learned_range").sum()

    given = (0.7 * EPS, 0.3 * jnp.sin(9.0 * X0))
    grads = {loss: jax.grad(total)(given, loss) for loss in ("weighted", "bound", "hybrid")}
    np.testing.assert_allclose(grads["hybrid"][0], grads["weighted"][0], rtol=1e-6)
    expected = BOUND_IN_HYBRID * grads["bound"][1]
    np.testing.assert_allclose(grads["hybrid"][1], expected, rtol=1e-5, atol=1e-9)
    assert np.all(grads["weighted"][1] == 0.0)
    assert np.abs(grads["hybrid"][1]).max() > 0.0
    sums = {loss: total(given, loss) for loss in grads}
    expected = sums["weighted"] + BOUND_IN_HYBRID * sums["bound"]
    np.testing.assert_allclose(sums["hybrid"], expected, rtol=1e-5)


def test_the_best_variance_is_found_by_descending_the_bound():
    """Where the error of x0 is known, the optimal learned variance matches the true spread."""
    meaning, row = prediction("x0", SCHEDULE), reverse_process(SCHEDULE, "learned_range")
    t, error = 20, 0.3
    # E (mu~ - x_{t-1})^2 = posterior_var + x0_weight^2 error^2 minimises the expected KL.
    best = row.moves.posterior_var[t] + (row.moves.x0_weight[t] * error) ** 2
    expected = (np.log(best) - row.log_var.offset[t]) / row.log_var.span[t]
    outputs = jnp.linspace(-1.0, 3.0, 4001)
    x0 = jnp.zeros((4001, 1))
    model = Model(meaning, row, "simple", LEVELS)
    output = jnp.stack([jnp.full(4001, error), outputs], -1)
    losses = training_loss(model, "bound", lambda x, time: output, x0, jnp.full(4001, t), x0)
    assert abs(float(outputs[jnp.argmin(losses)]) - expected) < 0.02
