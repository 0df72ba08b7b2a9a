"""Laws of the whole bound: its strata, and that it lies above the truth."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.core import bound, gaussian, schedules
from diffusion_jax.core.arrays import lookup
from diffusion_jax.core.predictions import Denoised
from diffusion_jax.core.process import VARIANCES, is_learned, reverse_process
from diffusion_jax.truth import exact

FIXED = [name for name in VARIANCES if not is_learned(name)]
MEAN, VAR = 0.1, 0.2
DATA = exact.gaussian(MEAN, VAR)


def test_the_whole_bound_has_a_term_for_every_step():
    """By default every step has its own stratum; an image's terms do not depend on the others."""
    schedule = schedules.log_snr_linear(9, 17)
    reverse, denoise = reverse_process(schedule, "fixed_small"), exact.denoiser(schedule, DATA)
    x0 = jnp.linspace(-1.0, 1.0, 4)[:, None]
    keys = jax.random.split(jax.random.key(0), 4)
    whole = bound.bound_nats(reverse, denoise, None, keys, x0)
    nats = np.float64(whole.terms.nats)
    assert nats.shape == (9, 4)
    np.testing.assert_array_equal(whole.reconstruction, nats[0])
    np.testing.assert_allclose(whole.diffusion, nats[1:].sum(0), rtol=1e-6)
    np.testing.assert_allclose(whole.total, nats.sum(0) + whole.prior, rtol=1e-6)
    alone = bound.bound_nats(reverse, denoise, None, keys[2:3], x0[2:3])
    np.testing.assert_allclose(alone.terms.nats[:, 0], nats[:, 2], rtol=1e-5, atol=1e-6)


def discrete_gap(variance, steps, every=1, count=8000, levels=17):
    """Bound minus truth in nats, and its standard error: discrete data, its exact denoiser."""
    schedule = schedules.log_snr_linear(steps, levels)
    grid = 2.0 * jnp.arange(levels) / (levels - 1) - 1.0
    log_p = gaussian.discretised_log_likelihood(jnp.arange(levels), MEAN, np.log(VAR), levels)
    level = jax.random.categorical(jax.random.key(2), log_p, shape=(count,))
    x0 = grid[level].reshape(count, 1, 1, 1)

    def denoise(x, t):
        """E[x0 | x_t] of the discrete data by Bayes' rule over its levels."""
        signal, noise = lookup(schedule.signal, t, x), lookup(schedule.noise, t, x)
        posterior = jax.nn.softmax(log_p - 0.5 * jnp.square((x - signal * grid) / noise))
        x0 = jnp.sum(posterior * grid, -1, keepdims=True)
        return Denoised(x0, (x - signal * x0) / noise)

    keys = jax.random.split(jax.random.key(3), count)
    reverse = reverse_process(schedule, variance)
    terms = bound.bound_nats(reverse, denoise, levels, keys, x0, every)
    assert terms.terms.nats.shape == (len(bound.strata(steps, every).start), count)
    gap = terms.total + log_p[level]
    return float(gap.mean()), float(gap.std()) / np.sqrt(count)


@pytest.mark.parametrize("variance", FIXED)
def test_the_bound_lies_above_the_truth_and_tightens_with_more_steps(variance):
    gaps = [discrete_gap(variance, steps) for steps in (25, 100, 400)]
    for gap, error in gaps:
        assert gap > -4.0 * error
    # The exact denoiser leaves only the cost of finite steps, which falls like 1 / T.
    (coarse, _), (middle, middle_error), (fine, fine_error) = gaps
    assert middle < coarse / 2.5 + 4.0 * middle_error
    assert fine < middle / 2.5 + 4.0 * fine_error


def test_strata_estimate_the_same_bound():
    (whole, error), (part, part_error) = (discrete_gap("fixed_small", 400, k) for k in (1, 7))
    assert abs(whole - part) < 4.0 * np.hypot(error, part_error)
    assert part_error > error


@pytest.mark.parametrize(("steps", "every"), [(1, 1), (10, 1), (10, 3), (1000, 8), (10, 9)])
def test_strata_cover_every_step_once(steps, every):
    start, size = bound.strata(steps, every)
    covered = np.concatenate([np.arange(a, a + n) for a, n in zip(start, size, strict=True)])
    np.testing.assert_array_equal(covered, np.arange(steps))
    assert size[0] == 1
    assert np.all(size <= every)


def test_a_stratums_step_is_drawn_evenly_and_apart_from_its_noise():
    """All steps are equally likely, independent of the noise and of other strata's steps."""
    schedule, count = schedules.linear(17, 1e-2, 0.3), 8000
    x0 = jnp.zeros((count, 1))

    def tell(x, t):
        """The step and the noise, to be read off the squared errors."""
        return Denoised(lookup(np.arange(17.0), t, x) + x0, x0 - 9.0)

    keys = jax.random.split(jax.random.key(0), count)
    terms = bound.bound_nats(reverse_process(schedule, "fixed_small"), tell, None, keys, x0, 8)
    first, *steps = np.rint(np.sqrt(terms.terms.x0_mse)).astype(int)
    eps = np.sqrt(terms.terms.eps_mse) - 9.0
    assert np.all(first == 0)
    for run, t in enumerate(steps):
        counts = np.bincount(t - 1 - 8 * run, minlength=8)
        assert len(counts) == 8
        assert np.all(np.abs(counts - count / 8) < 5 * np.sqrt(count / 8))
    independent = np.corrcoef([*steps, *eps])
    assert np.abs(independent - np.eye(5)).max() < 5 / np.sqrt(count)
    np.testing.assert_allclose(eps.std(1), 1.0, atol=0.05)
