"""The Fréchet distance: laws for Gaussians, and that its features tell digits from noise."""

import numpy as np
import pytest

from diffusion_jax.data.sources import load_dataset
from diffusion_jax.evaluation import frechet
from diffusion_jax.evaluation.frechet import Moments


def drawn(seed: int, size: int = 5) -> Moments:
    rng = np.random.default_rng(seed)
    root = rng.standard_normal((size, size))
    return Moments(rng.standard_normal(size), root @ root.T)


@pytest.mark.parametrize("seed", range(5))
def test_the_distance_of_a_set_to_itself_is_zero(seed):
    values = np.random.default_rng(seed).standard_normal((50, 8))
    one = frechet.mean_and_cov(values)
    assert frechet.distance(one, frechet.mean_and_cov(values[::-1])) == pytest.approx(
        0.0, abs=1e-10
    )


def test_one_dimension_has_a_closed_form():
    """(m_a - m_b)^2 + (s_a - s_b)^2."""
    a, b = (Moments(np.array([m]), np.array([[s**2]])) for m, s in ((0.3, 2.0), (-1.0, 0.5)))
    assert frechet.distance(a, b) == pytest.approx(1.3**2 + 1.5**2)


def test_two_dimensions_have_a_closed_form():
    """The root of a 2x2 matrix M has trace (tr M + 2 det(M)^(1/2))^(1/2), whatever commutes."""
    a, b = drawn(1, 2), drawn(2, 2)
    product = a.cov @ b.cov
    root = np.sqrt(np.trace(product) + 2.0 * np.sqrt(np.linalg.det(product)))
    spread = np.trace(a.cov) + np.trace(b.cov) - 2.0 * root
    assert frechet.distance(a, b) == pytest.approx(np.sum((a.mean - b.mean) ** 2) + spread)


@pytest.mark.parametrize("seed", range(5))
def test_it_is_symmetric_and_turns_with_the_features(seed):
    a, b = drawn(seed), drawn(seed + 100)
    rotation = np.linalg.qr(np.random.default_rng(seed).standard_normal((5, 5)))[0]
    turned = (Moments(rotation @ each.mean, rotation @ each.cov @ rotation.T) for each in (a, b))
    wanted = frechet.distance(a, b)
    assert wanted > 0.0
    assert frechet.distance(b, a) == pytest.approx(wanted)
    assert frechet.distance(*turned) == pytest.approx(wanted)


def test_samples_of_two_gaussians_are_as_far_apart_as_these():
    a, b = drawn(1), drawn(2)
    rng = np.random.default_rng(0)
    sets = (frechet.mean_and_cov(rng.multivariate_normal(*each, size=100_000)) for each in (a, b))
    assert frechet.distance(*sets) == pytest.approx(frechet.distance(a, b), rel=0.02)


def test_its_features_tell_digits_from_changed_ones():
    train, test = (load_dataset("digits", split) for split in ("train", "test"))
    network = frechet.learn(train, test)
    assert network.accuracy > 0.95
    again = frechet.learn(train, test)
    np.testing.assert_array_equal(network.weights, again.weights)
    real = frechet.mean_and_cov(frechet.features(network, train.images))
    noise = np.random.default_rng(0).integers(17, size=test.images.shape)
    sets = (test.images, np.clip(test.images + noise // 4, 0, 16), noise)
    near, off, far = (
        frechet.distance(frechet.mean_and_cov(frechet.features(network, each)), real)
        for each in sets
    )
    assert 0.0 < near < off < far
