"""Laws of densities on a grid: the forward step, its posterior, and what the objective fits."""

import itertools

import numpy as np
import pytest

from diffusion_jax.truth import density_grid as dg

X = np.linspace(-8.0, 8.0, 321)
WIDTH = dg.grid_width(X)
STANDARD = dg.normal(X, 0.0, 1.0)


def bimodal(x=X):
    return 0.4 * dg.normal(x, -0.6, 0.3**2) + 0.6 * dg.normal(x, 0.8, 0.25**2)


def box(x=X):
    density = np.where(np.abs(x - 0.5) < 1.0, 1.0, 0.0)
    return density / (density.sum() * dg.grid_width(x))


# For laws about every density.
DATA = {"bimodal": bimodal(), "box": box(), "gaussian": dg.normal(X, 0.4, 0.5)}
each_density = pytest.mark.parametrize("density", DATA.values(), ids=DATA.keys())


def bimodal_samples(count):
    rng = np.random.default_rng(0)
    left = rng.uniform(size=count) < 0.4
    mean, std = np.where(left, -0.6, 0.8), np.where(left, 0.3, 0.25)
    return mean + std * rng.normal(size=count), rng.normal(size=count)


def kolmogorov_distance(samples, density):
    below = np.searchsorted(np.sort(samples), X + 0.5 * WIDTH) / len(samples)
    return np.abs(below - WIDTH * np.cumsum(density)).max()


def test_halves_of_the_step_are_those_of_samples():
    samples, eps = bimodal_samples(40_000)
    alpha = 0.6
    scaled, critical = np.sqrt(alpha) * samples, 1.95 / np.sqrt(len(samples))
    noisier = scaled + np.sqrt(1.0 - alpha) * eps
    assert kolmogorov_distance(scaled, dg.scale(bimodal(), X, np.sqrt(alpha))) < critical
    assert kolmogorov_distance(noisier, dg.forward_step(bimodal(), X, alpha)) < critical


@pytest.mark.parametrize("factor", [0.5, 0.9, 1.5])
def test_scaling_makes_narrow_and_tall(factor):
    expected = dg.normal(X, 0.4 * factor, 0.5 * factor**2)
    scaled = dg.scale(DATA["gaussian"], X, factor)
    np.testing.assert_allclose(scaled, expected, atol=2e-3 * expected.max())


@each_density
def test_blurring_adds_its_variance_and_keeps_the_mass(density):
    mean, var = dg.moments(density, X)
    blurred = dg.blur(density, X, 0.3)
    assert WIDTH * blurred.sum() == pytest.approx(1.0, abs=1e-12)
    np.testing.assert_allclose(dg.moments(blurred, X), (mean, var + 0.3), rtol=1e-13)


def test_nothing_wraps_around():
    """A density at one end of the grid leaves nothing at the other, and half of it is lost."""
    end = np.zeros_like(X)
    end[-1] = 1.0 / WIDTH
    blurred = dg.blur(end, X, 0.25)
    assert np.all(blurred[: len(X) // 2] < 1e-30)
    assert WIDTH * blurred.sum() == pytest.approx(0.5, abs=0.6 * WIDTH)


def test_step_is_scaling_then_blurring():
    """The halves differ from the kernel by interpolation alone, quadratic in the grid's width."""
    errors = []
    for points in (161, 321):
        x = np.linspace(-8.0, 8.0, points)
        halves = dg.blur(dg.scale(bimodal(x), x, np.sqrt(0.4)), x, 1.0 - 0.4)
        errors.append(dg.l1(halves, dg.forward_step(bimodal(x), x, 0.4), dg.grid_width(x)))
    assert errors[1] < 3e-4
    assert errors[0] / errors[1] == pytest.approx(4.0, rel=0.2)


def test_three_small_steps_are_one_large():
    small, large = dg.transition_kernel(X, 0.95), dg.transition_kernel(X, 0.857375)
    inner = np.abs(X) < 4.0
    merged = WIDTH**2 * small @ small @ small
    np.testing.assert_allclose(merged[:, inner], large[:, inner], rtol=0.0, atol=1e-13)


@each_density
def test_steps_drive_any_density_to_the_standard_normal(density):
    """KL falls at every step, in the end by alpha each (the mean's part, alpha_bar mean^2 / 2)."""
    distance = dg.kl_nats(dg.marginals(density, X, [0.8] * 30).T, STANDARD[:, None], WIDTH)
    assert np.all(np.diff(distance) < 0.0)
    mean, _ = dg.moments(density, X)
    assert distance[-1] == pytest.approx(0.5 * 0.8**30 * mean**2, rel=0.006)


def test_divergences_of_gaussians():
    p, q = dg.normal(X, 0.3, 0.4), dg.normal(X, -0.2, 0.7)
    kl = 0.5 * (np.log(0.7 / 0.4) + (0.4 + 0.5**2) / 0.7 - 1.0)
    assert dg.kl_nats(p, q, WIDTH) == pytest.approx(kl, abs=1e-12)
    assert dg.entropy_nats(p, WIDTH) == pytest.approx(0.5 * np.log(2 * np.pi * np.e * 0.4))
    assert dg.kl_nats(box(), bimodal(), WIDTH) < np.inf == dg.kl_nats(bimodal(), box(), WIDTH)
    assert dg.l1(p, p, WIDTH) == 0.0
    apart = dg.l1(dg.normal(X, -4.0, 0.1), dg.normal(X, 4.0, 0.1), WIDTH)
    assert apart == pytest.approx(2.0, abs=1e-12)


@pytest.mark.parametrize("alpha", [0.99, 0.7, 0.1])
def test_posterior_of_gaussian_data(alpha):
    mean, var = 0.4, 0.5
    previous = dg.normal(X, mean, var)
    posterior_var = 1.0 / (1.0 / var + alpha / (1.0 - alpha))
    posterior_mean = posterior_var * (mean / var + np.sqrt(alpha) * X / (1.0 - alpha))
    inner = np.abs(X) < 4.0
    expected = dg.normal(X[:, None], posterior_mean, posterior_var)[:, inner]
    kernel = dg.posterior_kernel(previous, X, alpha)
    np.testing.assert_allclose(kernel[:, inner], expected, rtol=0.0, atol=1e-13)
    tweedie = dg.tweedie_mean(previous, X, alpha)
    np.testing.assert_allclose(tweedie[inner], posterior_mean[inner], rtol=0.0, atol=3e-13)


def test_posterior_mean_is_tweedies():
    """Up to the finite difference of the score, quadratic in the grid's width."""
    errors = []
    for points in (161, 321):
        x = np.linspace(-8.0, 8.0, points)
        mean, _ = dg.moments(dg.posterior_kernel(bimodal(x), x, 0.8), x)
        inner = np.abs(x) < 4.0
        errors.append(np.abs(mean - dg.tweedie_mean(bimodal(x), x, 0.8))[inner].max())
    assert errors[1] < 3e-3
    assert errors[0] / errors[1] == pytest.approx(4.0, rel=0.05)


def test_gaussian_posterior_follows_the_slope_of_the_data():
    """Where the log-density is a straight line it is exact; the slope counts at mu."""
    line, inner = np.exp(0.7 * X), np.abs(X) < 4.0
    mean, var = dg.gaussian_posterior(line, X, 0.9)
    exact = dg.posterior_kernel(line, X, 0.9)[:, inner]
    near = dg.normal(X[:, None], mean, var)[:, inner]
    np.testing.assert_allclose(near, exact, rtol=0.0, atol=1e-12)
    mean, var = dg.gaussian_posterior(DATA["gaussian"], X, 0.9)
    mu = X / np.sqrt(0.9)
    on_grid = np.abs(mu) < 8.0
    np.testing.assert_allclose(mean[on_grid], (mu + var * (0.4 - mu) / 0.5)[on_grid], atol=1e-12)


def test_posterior_tends_to_a_gaussian():
    """The variance is off by a factor 1 + O(beta): L1 falls like beta, KL like beta squared."""
    x = np.linspace(-2.0, 2.2, 400)
    width = dg.grid_width(x)
    inner = bimodal(x) > 1e-2
    far, divergence = [], []
    for beta in (0.004, 0.002, 0.001):
        exact = dg.posterior_kernel(bimodal(x), x, 1.0 - beta)
        mean, var = dg.gaussian_posterior(bimodal(x), x, 1.0 - beta)
        near = dg.normal(x[:, None], mean, var)
        seen = width * dg.forward_step(bimodal(x), x, 1.0 - beta)[inner]
        far.append(dg.l1(exact, near, width)[inner] @ seen)
        divergence.append(dg.kl_nats(exact, near, width)[inner] @ seen)
    far, divergence = np.array(far), np.array(divergence)
    np.testing.assert_allclose(far[:-1] / far[1:], 2.0, rtol=0.06)
    np.testing.assert_allclose(divergence[:-1] / divergence[1:], 4.0, rtol=0.06)


ALPHAS = np.linspace(0.99, 0.75, 40)


@each_density
def test_posteriors_restore_every_marginal(density):
    chain = dg.marginals(density, X, ALPHAS)
    restored = dg.restore(chain[-1], chain, X, ALPHAS)
    np.testing.assert_allclose(restored, chain, rtol=0.0, atol=1e-13)


@each_density
def test_restoring_forgives_a_wrong_end(density):
    """No further from the truth at any step than one step before; the far end is forgotten."""
    chain = dg.marginals(density, X, ALPHAS)
    noise = np.random.default_rng(1).uniform(0.5, 1.5, len(X))
    noisy = chain[-1] * noise / (WIDTH * (chain[-1] @ noise))
    for end in (STANDARD, noisy, dg.normal(X, 2.0, 0.3)):
        restored = dg.restore(end, chain, X, ALPHAS)
        for distance in (dg.l1, dg.kl_nats):
            away = distance(restored.T, chain.T, WIDTH)
            assert np.all(np.diff(away) >= -1e-13)
            assert away[0] < 0.15 * away[-1]


@each_density
@pytest.mark.parametrize("alpha", [0.99, 0.5])
def test_posterior_contracts(density, alpha):
    kernel = WIDTH * dg.posterior_kernel(density, X, alpha)
    inputs = [STANDARD, dg.normal(X, 1.0, 0.2), bimodal(), dg.normal(X, -2.0, 1.0)]
    for p, q in itertools.permutations(inputs, 2):
        for distance in (dg.l1, dg.kl_nats):
            assert distance(kernel @ p, kernel @ q, WIDTH) < distance(p, q, WIDTH)


@each_density
@pytest.mark.parametrize("alpha", [0.99, 0.5, 0.1])
def test_fixed_point_is_stationary_and_attracts(density, alpha):
    kernel = WIDTH * dg.posterior_kernel(density, X, alpha)
    fixed = dg.fixed_point(density, X, alpha)
    np.testing.assert_allclose(kernel @ fixed, fixed, rtol=0.0, atol=1e-14)
    reached = np.linalg.matrix_power(kernel, 2**18) @ STANDARD
    np.testing.assert_allclose(reached, fixed, rtol=0.0, atol=1e-10)


def test_fixed_point_tends_to_the_data_as_alpha_falls():
    """From q^2 / N(0, 1) to q; the distance from q ends like the signal kept, sqrt(alpha)."""
    x = np.linspace(-5.0, 5.0, 400)
    width = dg.grid_width(x)
    alphas = [0.999, 0.99, 0.9, 0.5, 0.1, 4e-4, 1e-4]
    away = [dg.l1(dg.fixed_point(bimodal(x), x, a), bimodal(x), width) for a in alphas]
    assert np.all(np.diff(away) < 0.0)
    assert away[-2] / away[-1] == pytest.approx(2.0, rel=0.02)
    square = np.square(bimodal(x)) / dg.normal(x, 0.0, 1.0)
    square /= width * square.sum()
    assert dg.l1(dg.fixed_point(bimodal(x), x, 0.999), square, width) < 0.01


def test_second_eigenvalue_nears_one_for_small_steps():
    """Gaussian data of variance v: the posterior is autoregressive, sqrt(a) v / (a v + 1 - a)."""
    for alpha, var in itertools.product([0.99, 0.5, 0.1], [0.5, 1.0]):
        kernel = dg.posterior_kernel(dg.normal(X, 0.4, var), X, alpha)
        expected = np.sqrt(alpha) * var / (alpha * var + 1.0 - alpha)
        assert dg.second_eigenvalue(kernel, WIDTH) == pytest.approx(expected, abs=1e-10)
    second = [
        dg.second_eigenvalue(dg.posterior_kernel(bimodal(), X, a), WIDTH) for a in (0.1, 0.9, 0.99)
    ]
    assert 0.0 < second[0] < second[1] < second[2] < 1.0


BEFORE, ALPHA = 0.7, 0.8


@each_density
def test_knowing_more_leaves_less_entropy(density):
    """H(x_{t-1}) > H(x_{t-1} | x0) > H(x_{t-1} | x_t, x0), also below H(x_{t-1} | x_t)."""
    known = dg.conditioned(density, X, BEFORE, ALPHA, 0.3, -0.5)
    entropy = [dg.entropy_nats(p, WIDTH) for p in known]
    assert entropy[0] > entropy[1] > entropy[2]
    kernel = dg.posterior_kernel(known[0], X, ALPHA)
    xt = dg.forward_step(known[0], X, ALPHA)
    given_xt = WIDTH * dg.entropy_nats(kernel, WIDTH) @ xt
    assert entropy[0] > given_xt > entropy[2]


def test_data_that_are_one_point_give_the_posterior_given_x0():
    x0, xt = (int(np.abs(X - place).argmin()) for place in (0.5, -1.0))
    point = np.zeros_like(X)
    point[x0] = 1.0 / WIDTH
    marginal, given_x0, given_both = dg.conditioned(point, X, BEFORE, ALPHA, X[x0], X[xt])
    found = dg.posterior_kernel(marginal, X, ALPHA)[:, xt]
    np.testing.assert_allclose(marginal, given_x0, rtol=0.0, atol=1e-14)
    np.testing.assert_allclose(found, given_both, rtol=0.0, atol=1e-13)


def test_posterior_needs_the_data_only_without_x0():
    """q(x_{t-1} | x_t) = sum over x0 of q(x_{t-1} | x_t, x0) q(x0 | x_t), at one x_t, all data."""
    xt, found = int(np.abs(X + 1.0).argmin()), []
    given_both = dg.posterior_given_x0(X[:, None], X, X[xt], BEFORE, ALPHA)
    for density in DATA.values():
        x0_given_xt = dg.posterior_kernel(density, X, BEFORE * ALPHA)[:, xt]
        previous = dg.forward_step(density, X, BEFORE)
        found.append(dg.posterior_kernel(previous, X, ALPHA)[:, xt])
        summed = WIDTH * given_both @ x0_given_xt
        np.testing.assert_allclose(summed, found[-1], rtol=0.0, atol=1e-13)
    for p, q in itertools.combinations(found, 2):
        assert dg.l1(p, q, WIDTH) > 0.05


def joint_of_x0_and_xt(density):
    """q(x0, x_t) width^2, `[n, n]`, and q(x_{t-1}), `[n]`."""
    previous = dg.forward_step(density, X, BEFORE)
    xt = dg.forward_step(previous, X, ALPHA)
    return WIDTH**2 * dg.posterior_kernel(density, X, BEFORE * ALPHA) * xt, previous


def test_mutual_information_of_gaussian_data():
    var = BEFORE * 0.5 + 1.0 - BEFORE
    given_xt = 1.0 / (1.0 / var + ALPHA / (1.0 - ALPHA))
    given_both = 1.0 / (1.0 / (1.0 - BEFORE) + ALPHA / (1.0 - ALPHA))
    found = dg.mutual_information_nats(DATA["gaussian"], X, BEFORE, ALPHA)
    assert found == pytest.approx(0.5 * np.log(given_xt / given_both), abs=1e-13)


@each_density
def test_objective_exceeds_the_fit_by_the_mutual_information(density):
    """E KL(q(x_{t-1} | x_t, x0) || p) = E KL(q(x_{t-1} | x_t) || p) + I for any p."""
    joint, previous = joint_of_x0_and_xt(density)
    kernel, seen = dg.posterior_kernel(previous, X, ALPHA), joint.sum(axis=0)
    gap = dg.mutual_information_nats(density, X, BEFORE, ALPHA)
    assert gap > 0.0
    # The exact reverse step, for which only I is left, and two Gaussians that do not fit.
    models = [kernel]
    for mean, var in [(0.7 * X + 0.1, 0.3), (np.sin(X), 0.5 + 0.4 * np.cos(X) ** 2)]:
        models.append(dg.normal(X[:, None], mean, var))
    for p in models:
        total = 0.0
        for i in np.flatnonzero(joint.sum(axis=1) > 1e-14):
            both = dg.posterior_given_x0(X[:, None], X[i], X, BEFORE, ALPHA)
            total += dg.kl_nats(both, p, WIDTH) @ joint[i]
        fit = dg.kl_nats(kernel, p, WIDTH) @ seen
        assert total - fit == pytest.approx(gap, abs=2e-12)


def test_best_gaussian_matches_moments():
    """Neither a Gaussian nearby nor the least-squares fit of the density has less cross-entropy.

    Cross-entropy is KL + H(q); q is a q(x_{t-1} | x_t) with two peaks.
    """
    previous = dg.forward_step(bimodal(), X, 0.9)
    q = dg.posterior_kernel(previous, X, 0.3)[:, 170]
    mean, var = dg.moments(q, X)

    def square(mean, var):
        return WIDTH * np.sum(np.square(dg.normal(X, mean, var) - q))

    means, vars_ = np.linspace(-1.0, 1.5, 101), np.linspace(0.5 * var, 2.0 * var, 101)
    fits = {(m, v): square(m, v) for m, v in itertools.product(means, vars_)}
    least_squares = min(fits, key=fits.__getitem__)
    assert fits[least_squares] < square(mean, var)
    best = dg.kl_nats(q, dg.normal(X, mean, var), WIDTH)
    assert best < dg.kl_nats(q, dg.normal(X, *least_squares), WIDTH)
    for shift, factor in [(0.01, 1.0), (-0.01, 1.0), (0.0, 1.02), (0.0, 0.98)]:
        assert best < dg.kl_nats(q, dg.normal(X, mean + shift, factor * var), WIDTH)


def test_a_grid_too_coarse_is_refused():
    with pytest.raises(ValueError, match="too coarse"):
        dg.transition_kernel(X, 0.999)
