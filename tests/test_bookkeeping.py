"""Entropies, cross-entropies and divergences: what the bound is made of."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toys import ordinary

from diffusion_jax.core import bound, gaussian, schedules
from diffusion_jax.core.process import VARIANCES, is_learned, q_sample, reverse_process
from diffusion_jax.truth import bookkeeping, exact

SCHEDULE = schedules.linear(60, 1e-3, 0.2)
DATA = exact.gaussian([0.2, -0.1], [[0.3, 0.1], [0.1, 0.2]])
X0 = exact.sample(DATA, jax.random.key(0), 59)
EPS = jax.random.normal(jax.random.key(1), X0.shape)
T = jnp.arange(1, 60)


@pytest.mark.parametrize("variance", VARIANCES)
def test_cross_entropy_is_divergence_plus_entropy_at_every_t(variance):
    """E CE(q, p) = E KL(q || p) + E H(q): only the divergence depends on the model."""
    reverse = reverse_process(SCHEDULE, variance)
    denoised = exact.denoiser(SCHEDULE, DATA)(q_sample(SCHEDULE, X0, T, EPS), T)
    if is_learned(variance):
        denoised = denoised._replace(var_output=0.3 * jnp.sin(X0))
    cross = bookkeeping.diffusion_cross_entropy_nats(reverse, denoised, X0, EPS, T)
    entropy = bookkeeping.posterior_entropy_nats(reverse, X0, T)
    divergence = bound.diffusion_nats(reverse, denoised, X0, EPS, T)
    np.testing.assert_allclose(cross, divergence + entropy, rtol=1e-4, atol=2e-4)
    expected = np.log(2 * np.pi * np.e * reverse.moves.posterior_var[1:])  # D/2 log(...), D = 2
    np.testing.assert_allclose(entropy, expected, rtol=1e-5)


@pytest.mark.parametrize("levels", [None, 256])
@pytest.mark.parametrize("decoder", ["first_noise", "clipped"])
def test_the_terms_are_those_of_the_bound_and_add_up_to_it(levels, decoder):
    """-bound = -sum KL + H_q(x_T | x0) - H_q(x_1 | x0) - H_p(x_T) + fit, each in closed form."""
    reverse = reverse_process(SCHEDULE, "fixed_large", decoder)
    denoise = exact.denoiser(SCHEDULE, DATA)
    keys = jax.random.split(jax.random.key(2), len(X0))
    terms = bound.bound_nats(reverse, denoise, levels, keys, X0)
    account = bookkeeping.bookkeeping(SCHEDULE, X0, terms)
    np.testing.assert_allclose(account.total, terms.total, rtol=2e-5, atol=2e-5)
    # Each on its own: the fit is defined by a difference, so the sum alone would hide an error.
    dims, last = X0.shape[-1], SCHEDULE.signal[-1] * X0
    for found, std in (
        (account.first_entropy, SCHEDULE.noise[0]),
        (account.last_entropy, SCHEDULE.noise[-1]),
    ):
        np.testing.assert_allclose(found, dims / 2 * np.log(2 * np.pi * np.e * std**2), rtol=1e-5)
    square = np.sum(np.square(last), -1) + dims * SCHEDULE.noise[-1] ** 2
    prior = dims / 2 * np.log(2 * np.pi) + square / 2  # -E log N(x_T; 0, I)
    np.testing.assert_allclose(account.prior_cross_entropy, prior, rtol=1e-5)
    np.testing.assert_allclose(account.divergences, terms.diffusion, rtol=1e-6)
    entropy = dims / 2 * np.log(2 * np.pi * np.e * SCHEDULE.noise[0] ** 2)
    np.testing.assert_allclose(account.fit, entropy - terms.reconstruction, rtol=1e-5, atol=1e-5)
    # The fit, which Sohl-Dickstein et al. 2015 set to zero, is nats per image.
    assert np.abs(account.fit).mean() > 0.1


@pytest.mark.parametrize(
    "schedule",
    [
        *(pytest.param(ordinary(name, 100), id=name) for name in schedules.SCHEDULES),
        pytest.param(schedules.zero_terminal(ordinary("cosine", 100)), id="zero_terminal"),
    ],
)
def test_bookkeeping_is_the_bound_on_every_schedule(schedule):
    """With the exact denoiser, whatever prior the schedule ends in."""
    reverse, denoise = reverse_process(schedule, "fixed_large"), exact.denoiser(schedule, DATA)
    keys = jax.random.split(jax.random.key(4), 9)
    terms = bound.bound_nats(reverse, denoise, None, keys, X0[:9])
    account = bookkeeping.bookkeeping(schedule, X0[:9], terms)
    np.testing.assert_allclose(account.total, terms.total, rtol=2e-5, atol=5e-5)


def test_the_fit_vanishes_only_if_the_decoder_inverts_the_first_step():
    """fit = E log p(x0 | x_1) + H_q(x_1 | x0) = -KL and more, 0 for a perfect, sharp decoder."""
    schedule = schedules.log_snr_linear(50, 256)
    reverse, denoise = reverse_process(schedule, "fixed_small"), exact.denoiser(schedule, DATA)
    keys = jax.random.split(jax.random.key(3), len(X0))
    account = bookkeeping.bookkeeping(
        schedule, X0, bound.bound_nats(reverse, denoise, None, keys, X0)
    )
    # With hardly any noise in x_1 the posterior of x0 is q(x_1 | x0) turned round.
    assert abs(float(account.fit.mean())) < 4.0 * float(account.fit.std()) / np.sqrt(len(X0))


P = jnp.array([[0.1, 0.0, 0.9], [0.3, 0.3, 0.4], [1.0, 0.0, 0.0]])
Q = jnp.array([0.2, 0.3, 0.5])


def test_discrete_cross_entropy_is_entropy_plus_kl():
    expected = bookkeeping.discrete_entropy(P) + bookkeeping.discrete_kl(P, Q)
    np.testing.assert_allclose(bookkeeping.discrete_cross_entropy(P, Q), expected, rtol=1e-6)
    assert np.all(bookkeeping.discrete_kl(P, Q) > 0.0)
    np.testing.assert_allclose(bookkeeping.discrete_kl(P, P), 0.0, atol=1e-7)


def test_discrete_entropy_of_known_cases():
    np.testing.assert_allclose(
        bookkeeping.discrete_entropy(jnp.full(8, 0.125)), np.log(8.0), rtol=1e-6
    )
    assert float(bookkeeping.discrete_entropy(jnp.array([1.0, 0.0]))) == 0.0
    assert np.isinf(bookkeeping.discrete_kl(jnp.array([0.5, 0.5]), jnp.array([1.0, 0.0])))


def test_bernoulli_entropy_peaks_at_a_half():
    p = jnp.linspace(0.01, 0.99, 99)
    entropy = bookkeeping.discrete_entropy(bookkeeping.bernoulli(p))
    expected = -(p * jnp.log(p) + (1 - p) * jnp.log(1 - p))
    np.testing.assert_allclose(entropy, expected, rtol=1e-5)
    assert int(jnp.argmax(entropy)) == 49
    np.testing.assert_allclose(entropy[49], np.log(2.0), rtol=1e-6)


def test_fine_bins_of_a_gaussian_have_its_entropy():
    """Discrete and differential entropy differ by the log of the bin's width."""
    levels, log_var = 4001, np.log(0.01)
    log_p = gaussian.discretised_log_likelihood(jnp.arange(levels), 0.0, log_var, levels)
    width = 2.0 / (levels - 1)
    expected = gaussian.entropy(jnp.asarray(log_var)) - np.log(width)
    np.testing.assert_allclose(bookkeeping.discrete_entropy(jnp.exp(log_p)), expected, rtol=1e-4)
