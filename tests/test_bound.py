"""The bound against data whose likelihood is known, in float32 and in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.core import bound, gaussian, moves, schedules
from diffusion_jax.core.predictions import Denoised
from diffusion_jax.core.process import (
    DECODERS,
    VARIANCES,
    is_learned,
    p_mean_variance,
    q_posterior,
    q_sample,
    reverse_process,
)
from diffusion_jax.truth import exact

STEPS = 1000
SCHEDULES = {
    "linear": schedules.linear(STEPS),
    "cosine": schedules.cosine(STEPS),
    "log_snr": schedules.log_snr_linear(STEPS, 256),
}
DIAGONAL = ("learned_diagonal", "learned_log_variance")
FIXED = [name for name in VARIANCES if not is_learned(name)]
MEAN, VAR = 0.1, 0.2
DATA = exact.gaussian(MEAN, VAR)
T = jnp.arange(1, STEPS)


def draws(count, steps=STEPS - 1):
    """x0 of the data and noise: `[steps, count, 1]`, one row a step, float32."""
    eps = jax.random.normal(jax.random.key(1), (steps, count, 1))
    return MEAN + np.sqrt(VAR) * jax.random.normal(jax.random.key(0), eps.shape), eps


def posterior_mean(schedule, xt):
    """E[x0 | x_t] of the Gaussian data for t >= 1, in float64."""
    signal, noise = schedule.signal[1:, None, None], schedule.noise[1:, None, None]
    gain = signal * VAR / (signal**2 * VAR + noise**2)
    return MEAN + gain * (xt - signal * MEAN)


def textbook(schedule, model_var, x0, eps):
    """KL of the posterior and the model's Gaussian as every book has it, summed, in float64."""
    row = moves.single_steps(schedule)
    x0, eps = np.float64(x0), np.float64(eps)
    xt = schedule.signal[1:, None, None] * x0 + schedule.noise[1:, None, None] * eps
    shift = row.x0_weight[1:, None, None] * (x0 - posterior_mean(schedule, xt))
    var = row.posterior_var[1:, None, None]
    kl = 0.5 * (np.log(model_var / var) + (var + shift**2) / model_var - 1.0)
    return kl.sum((1, 2))


@pytest.mark.parametrize("variance", VARIANCES)
@pytest.mark.parametrize("name", SCHEDULES)
def test_every_term_equals_the_textbooks(name, variance):
    """All three forms in float32 against float64, at every t, over the same 512 draws."""
    schedule = SCHEDULES[name]
    reverse = reverse_process(schedule, variance)
    x0, eps = draws(512)
    output = 0.3 * jnp.sin(7.0 * x0) if is_learned(variance) else None
    denoised = exact.denoiser(schedule, DATA)(q_sample(schedule, x0, T, eps), T)
    denoised = denoised._replace(var_output=output)
    log_var, span = (table[1:, None, None] for table in reverse.log_var)
    log_var = log_var + span * (0.0 if output is None else np.float64(output))
    expected = textbook(schedule, np.exp(log_var), x0, eps)
    for through, tolerance in (("x0", 1e-5), ("eps", 2e-4), ("mean", 2e-4)):
        nats = bound.diffusion_nats(reverse, denoised, x0, eps, T, through)
        np.testing.assert_allclose(nats, expected, rtol=tolerance, err_msg=through)


def nodes(steps):
    """Gauss-Hermite nodes of (x0, eps) for every step, `[steps, n, 1]`, and their weights `[n]`."""
    z, w = np.polynomial.hermite_e.hermegauss(12)
    x0, eps = np.meshgrid(MEAN + np.sqrt(VAR) * z, z)
    weights = np.outer(w, w).ravel() / w.sum() ** 2
    return *(np.broadcast_to(a.reshape(1, -1, 1), (steps, a.size, 1)) for a in (x0, eps)), weights


def x0_error(schedule):
    """E (x0 - E[x0 | x_t])^2, the variance of x0 given x_t, at every t."""
    return VAR * schedule.noise**2 / (schedule.signal**2 * VAR + schedule.noise**2)


def expected_terms(reverse):
    """The mean of every term under the exact denoiser, in closed form; row 0 has a density."""
    row, model_var = reverse.moves, np.exp(reverse.log_var.offset)
    ratio = np.log(model_var[1:] / row.posterior_var[1:])
    distance = row.x0_weight**2 * x0_error(reverse.schedule) / model_var
    first = 0.5 * (np.log(2 * np.pi * model_var[0]) + distance[0])
    return np.append(first, 0.5 * (np.expm1(-ratio) + ratio + distance[1:]))


@pytest.mark.parametrize("variance", FIXED)
@pytest.mark.parametrize("name", SCHEDULES)
def test_expected_terms_equal_the_closed_form(name, variance):
    """The mean over data and noise by Gauss-Hermite nodes, which are exact for squares."""
    schedule = SCHEDULES[name]
    reverse = reverse_process(schedule, variance)
    x0, eps, weights = nodes(STEPS)
    every = jnp.arange(STEPS)
    x0, eps = jnp.float32(x0), jnp.float32(eps)
    denoised = exact.denoiser(schedule, DATA)(q_sample(schedule, x0, every, eps), every)

    def nodewise(a):
        return a.reshape(-1, 1)

    t = jnp.repeat(every, len(weights))
    flat = jax.tree.map(nodewise, denoised)
    nats = bound.term_nats(reverse, flat, nodewise(x0), nodewise(eps), t, None)
    means = nats.reshape(STEPS, -1) @ weights
    np.testing.assert_allclose(means, expected_terms(reverse), rtol=2e-5)
    prior = bound.prior_nats(schedule, x0[0]) @ weights
    signal, noise = schedule.signal[-1], schedule.noise[-1]
    shift = signal**2 * (VAR + MEAN**2)
    expected = 0.5 * (shift + np.expm1(2 * np.log(noise)) - 2 * np.log(noise))
    np.testing.assert_allclose(prior, expected, rtol=1e-4)


@pytest.mark.parametrize("variance", FIXED)
def test_excess_over_the_entropy_is_a_sum_of_divergences(variance):
    """E bound - H(x0) = KL(q(x_T) || N(0, 1)) + sum over t of E KL(q(x_{t-1} | x_t) || p)."""
    with jax.enable_x64(True):
        schedule = schedules.log_snr_linear(60, 256)
        reverse = reverse_process(schedule, variance)
        row, denoise = reverse.moves, exact.denoiser(schedule, DATA)
        last = exact.marginal(DATA, schedule, 59)
        divergences = [float(gaussian.kl(last.mean, np.log(last.var), 0.0, 0.0).sum())]
        # q(x0 | x_1): the posterior of a Gaussian under Gaussian noise.
        first_var = x0_error(schedule)[0]
        decoder = reverse.log_var.offset[0]
        divergences.append(float(gaussian.kl(0.0, np.log(first_var), 0.0, decoder)))
        for t in range(1, 60):
            signal, noise = schedule.signal[t], schedule.noise[t]
            spread = np.sqrt(signal**2 * VAR + noise**2)
            xt = signal * MEAN + spread * jnp.array([-1.0, 1.0])[:, None]
            q = exact.reverse_step(DATA, schedule, t, xt)
            p = p_mean_variance(reverse, denoise, xt, jnp.full(2, t))
            log_var = jnp.log(q.var)[0]
            kl = gaussian.kl(q.mean[:, 0], log_var, p.mean, jnp.log(p.var))
            divergences.append(float(kl.mean()))
            assert row.s[t] == t - 1
        mean, var = schedule.signal[-1] * MEAN, last.var[0, 0]
        prior = 0.5 * (mean**2 + var - 1.0 - np.log(schedule.noise[-1] ** 2))
        entropy = float(gaussian.entropy(jnp.log(VAR)))
        excess = prior + expected_terms(reverse).sum() - entropy
        np.testing.assert_allclose(excess, sum(divergences), rtol=1e-9)


def test_the_gap_falls_like_one_over_the_number_of_steps():
    """On one log-SNR path cut into T steps, the data's entropy taken away, in float64."""
    gaps = []
    for steps in (10, 100, 1000, 10_000):
        schedule = schedules.log_snr_linear(steps, 256, log_snr_min=-14.0)
        last = schedule.signal[-1] ** 2 * (VAR + MEAN**2)
        prior = 0.5 * (last + np.expm1(2 * np.log(schedule.noise[-1])))
        prior -= np.log(schedule.noise[-1])
        terms = expected_terms(reverse_process(schedule, "fixed_large")).sum()
        gaps.append(prior + terms - 0.5 * np.log(2 * np.pi * np.e * VAR))
    ratios = np.array(gaps[:-1]) / np.array(gaps[1:])
    assert np.all(np.array(gaps) > 0.0)
    np.testing.assert_allclose(ratios[1:], 10.0, rtol=0.06)
    assert 5.0 < ratios[0] < 10.0  # ten steps are too few for the limit


def test_variance_part_keeps_its_digits_at_large_t():
    """With the fixed-large variance the textbook form cancels in float32; ours is float64."""
    reverse = reverse_process(SCHEDULES["linear"], "fixed_large")
    ratio = np.log(reverse.moves.forward_var[990] / reverse.moves.posterior_var[990])
    x0 = jnp.zeros((1, 1, 1, 1))
    nats = bound.diffusion_nats(reverse, Denoised(x0, x0), x0, x0, jnp.array([990]))
    np.testing.assert_allclose(nats[0], 0.5 * (np.expm1(-ratio) + ratio), rtol=1e-6)


@pytest.mark.parametrize("variance", VARIANCES)
def test_term_equals_the_divergence_of_the_two_gaussians(variance):
    """The shortcut through the error of x0 equals KL(posterior || model step) of the process."""
    schedule = schedules.linear(100, 1e-3, 0.2)
    reverse = reverse_process(schedule, variance)
    t = jnp.arange(1, 100)
    x0, eps = draws(16, steps=99)
    xt = q_sample(schedule, x0, t, eps)
    output = 0.4 * jnp.cos(x0) if is_learned(variance) else None
    denoised = exact.denoiser(schedule, DATA)(xt, t)._replace(var_output=output)
    p, q = reverse.gaussian(denoised, xt, t), q_posterior(schedule, x0, xt, t)
    expected = gaussian.kl(q.mean, jnp.log(q.var), p.mean, jnp.log(p.var)).sum((1, 2))
    nats = bound.diffusion_nats(reverse, denoised, x0, eps, t)
    np.testing.assert_allclose(nats, expected, rtol=2e-3, atol=2e-5)


@pytest.mark.parametrize("variance", FIXED)
def test_same_covariance_leaves_the_weighted_squared_error(variance):
    """Weights of the x0 and eps errors (Ho et al. 2020, eq. 12), plus the variances' constant."""
    schedule = SCHEDULES["linear"]
    reverse = reverse_process(schedule, variance)
    row, alpha_bar = reverse.moves, schedule.signal**2
    beta, var = row.forward_var[1:], np.exp(reverse.log_var.offset[1:])
    alpha, previous = 1.0 - beta, alpha_bar[:-1]
    x0_weight = previous * beta**2 / (2 * var * (1 - alpha_bar[1:]) ** 2)
    eps_weight = beta**2 / (2 * var * (1 - alpha_bar[1:]) * alpha)
    constant = gaussian.kl_of_variances(jnp.log(var / row.posterior_var[1:]))
    x0, eps = draws(1)
    off = Denoised(x0 + 0.1, eps + 0.1)
    for through, weight in (("x0", x0_weight), ("eps", eps_weight)):
        nats = bound.diffusion_nats(reverse, off, x0, eps, T, through)
        np.testing.assert_allclose(nats, 0.01 * weight + constant, rtol=2e-5)
    if variance == "fixed_small":
        snr = np.exp(schedule.log_snr)
        np.testing.assert_allclose(x0_weight, (snr[:-1] - snr[1:]) / 2, rtol=1e-9)


def test_learned_variances_span_the_fixed_ones():
    row = moves.single_steps(SCHEDULES["cosine"])
    middle = VARIANCES["learned_range"](row)
    for name, output in (("fixed_small", -1.0), ("fixed_large", 1.0)):
        ends = VARIANCES[name](row).offset
        np.testing.assert_allclose(middle.offset + output * middle.span, ends, rtol=1e-12)
    free = VARIANCES["learned_diagonal"](row)
    np.testing.assert_array_equal(free.offset, VARIANCES["fixed_large"](row).offset)
    assert np.all(free.span == 1.0)


@pytest.mark.parametrize("variance", VARIANCES)
def test_the_decoder_has_its_own_variance(variance):
    schedule = SCHEDULES["log_snr"]
    names = ("first_noise", "clipped")
    own, clipped = (reverse_process(schedule, variance, name).log_var for name in names)
    np.testing.assert_allclose(np.exp(own.offset[0]), schedule.noise[0] ** 2)
    posterior = moves.single_steps(schedule).posterior_var
    np.testing.assert_allclose(np.exp(clipped.offset[0]), posterior[1])
    np.testing.assert_array_equal(own.offset[1:], clipped.offset[1:])
    assert own.span[0] == (1.0 if variance in DIAGONAL else 0.0)


def test_a_decoder_with_a_range_needs_a_learned_variance():
    schedule = SCHEDULES["linear"]
    first = reverse_process(schedule, "learned_range", "clipped_range").log_var
    ends = [DECODERS[name](schedule) for name in ("clipped", "first_noise")]
    for output, end in zip((-1.0, 1.0), ends, strict=True):
        assert np.exp(first.offset[0] + output * first.span[0]) == pytest.approx(end)
    with pytest.raises(ValueError, match="'clipped_range' needs a learned variance"):
        reverse_process(schedule, "fixed_small", "clipped_range")


def test_the_clipped_decoder_makes_the_bound_large_on_log_snr_schedules():
    """It stays a bound. The first step's noise is far larger than the second's: nats are lost."""
    schedule = schedules.log_snr_linear(1000, 256)
    first = [
        expected_terms(reverse_process(schedule, "fixed_large", name))[0]
        for name in ("first_noise", "clipped")
    ]
    entropy = 0.5 * np.log(2 * np.pi * np.e * VAR)
    gaps = [
        expected_terms(reverse_process(schedule, "fixed_large", name)).sum() - entropy
        for name in ("first_noise", "clipped")
    ]
    assert first[1] - first[0] > 10.0
    assert 0.0 < gaps[0] < 5e-3
    assert gaps[1] > 10.0


def test_prior_cost_of_an_unscaled_signal():
    """KL(N(x0, noise^2) || N(0, 1 + noise^2)) of the last, not so large noise."""
    schedule = schedules.variance_exploding(10, 0.01, 2.0)
    x0 = np.linspace(-1.0, 1.0, 6, dtype=np.float32).reshape(2, 3)
    ratio = 4.0 / 5.0
    expected = 0.5 * (x0.astype(float) ** 2 / 5.0 + ratio - 1.0 - np.log(ratio)).sum(1)
    np.testing.assert_allclose(bound.prior_nats(schedule, x0), expected, rtol=1e-5)


def test_gradients_are_finite_everywhere():
    """Through the discretised decoder too, far from the data and with tiny variances."""
    schedule = schedules.log_snr_linear(50, 256)
    reverse = reverse_process(schedule, "learned_diagonal")
    t = jnp.arange(50)
    x0 = jnp.broadcast_to(jnp.linspace(-1.0, 1.0, 6)[:, None], (50, 6, 1))
    for off in (0.0, 1e-4, 0.3, -2.2):
        for output in (-9.0, 0.0, 3.0):

            def total(shift, var_output):
                off_x0 = Denoised(x0 + shift, x0, jnp.full_like(x0, var_output))
                return bound.term_nats(reverse, off_x0, x0, x0, t, 256).sum()

            value, grads = jax.value_and_grad(total, (0, 1))(off, output)
            assert np.isfinite(value), (off, output)
            assert np.all(np.isfinite(grads)), (off, output)
