"""Bits per dimension of a data set: the truth where it is known, whatever the batches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.core import schedules
from diffusion_jax.core.arrays import at
from diffusion_jax.core.predictions import Denoised
from diffusion_jax.data.dataset import Dataset
from diffusion_jax.evaluation.likelihood import bits_per_dim_of

LEVELS = 5
SCHEDULE = schedules.log_snr_linear(400, LEVELS)
PROBABILITIES = np.array([0.1, 0.4, 0.2, 0.05, 0.25])
ENTROPY_BITS = float(-np.sum(PROBABILITIES * np.log2(PROBABILITIES)))


@pytest.fixture(scope="module")
def dataset():
    """Pixels drawn independently, each level as often as its probability says."""
    levels = np.repeat(np.arange(LEVELS), np.rint(PROBABILITIES * 6000).astype(int))
    levels = np.random.default_rng(0).permutation(levels).astype(np.uint8)
    return Dataset(levels.reshape(-1, 2, 2, 1), np.zeros(1500, np.int32), LEVELS, 0)


def exact(params, label):
    """E[x0 | x_t] by Bayes' rule over the levels."""
    values = 2.0 * jnp.arange(LEVELS) / (LEVELS - 1) - 1.0

    def denoise(x, t):
        signal, noise = at(SCHEDULE.signal, t, x), at(SCHEDULE.noise, t, x)
        log_q = -0.5 * jnp.square((x - signal * values) / noise)
        weights = jax.nn.softmax(jnp.log(params) + log_q)
        x0 = jnp.sum(weights * values, -1, keepdims=True)
        return Denoised(x0, (x - signal * x0) / noise)

    return denoise


def measure(dataset, probabilities=PROBABILITIES, **options):
    return bits_per_dim_of(
        dataset, SCHEDULE, "fixed_large", exact, jnp.asarray(probabilities, jnp.float32), **options
    )


def test_the_exact_denoiser_reaches_the_entropy(dataset):
    bits = measure(dataset, batch_size=1500)
    np.testing.assert_allclose(bits.total, bits.prior + bits.diffusion + bits.reconstruction)
    error = 4.0 * bits.total.std() / np.sqrt(len(bits.total))
    # 400 steps cost about 0.03 bits; see the law of the gap in test_bound.
    assert -error < bits.total.mean() - ENTROPY_BITS < 0.05 + error


def test_a_wrong_model_pays_its_divergence(dataset):
    wrong = np.full(LEVELS, 1.0 / LEVELS)
    divergence = float(np.sum(PROBABILITIES * np.log2(PROBABILITIES / wrong)))
    paid = measure(dataset, wrong, batch_size=1500).total - measure(dataset, batch_size=1500).total
    assert abs(paid.mean() - divergence) < 0.03


def test_batches_change_nothing(dataset):
    part = Dataset(dataset.images[:30], dataset.labels[:30], LEVELS, 0)
    whole, pieces = measure(part, batch_size=30), measure(part, batch_size=7)
    np.testing.assert_allclose(whole.total, pieces.total, rtol=1e-4)
