"""Laws of the order in which training sees the images, and of the way from pixels to floats."""

import jax
import numpy as np
import pytest

from diffusion_jax.data.batches import batch_indices, permutation
from diffusion_jax.data.transforms import random_flip, to_levels, to_unit_range


@pytest.mark.parametrize(("size", "batch_size"), [(10, 4), (7, 7), (5, 13), (1, 3), (100, 1)])
def test_every_epoch_shows_every_image_once(size, batch_size):
    steps = -(-3 * size // batch_size)
    stream = np.concatenate([batch_indices(3, step, batch_size, size) for step in range(steps)])
    for epoch in range(3):
        assert sorted(stream[epoch * size : (epoch + 1) * size]) == list(range(size))


def test_epochs_and_seeds_are_shuffled_differently():
    orders = [batch_indices(seed, step, 50, 50) for seed in (0, 1) for step in (0, 1)]
    assert len({tuple(order) for order in orders}) == 4


def test_a_batch_depends_on_seed_and_step_alone():
    before = batch_indices(5, 12, 16, 50)
    for step in (0, 99, 3):
        batch_indices(6, step, 16, 50)
    permutation.cache_clear()
    after = batch_indices(5, 12, 16, 50)
    assert after.dtype == np.int64
    np.testing.assert_array_equal(before, after)


def test_a_batch_is_a_copy_that_may_be_changed():
    batch_indices(0, 0, 8, 8)[:] = 0
    assert sorted(batch_indices(0, 0, 8, 8)) == list(range(8))


def test_slices_of_processes_make_the_whole_batch():
    whole = batch_indices(0, 7, 12, 20)
    slices = [batch_indices(0, 7, 12, 20)[4 * k : 4 * k + 4] for k in range(3)]
    np.testing.assert_array_equal(np.concatenate(slices), whole)


def test_the_order_is_the_same_for_ever():
    assert batch_indices(0, 0, 6, 6).tolist() == [0, 3, 5, 1, 2, 4]


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_levels_and_unit_range_are_inverse(levels):
    every = np.arange(levels, dtype=np.uint8).reshape(1, levels, 1, 1)
    x = jax.jit(to_unit_range, static_argnums=1)(every, levels)
    assert x.dtype == np.float32
    assert (x.min(), x.max()) == (-1.0, 1.0)
    np.testing.assert_allclose(x.ravel(), np.linspace(-1, 1, levels), atol=1e-7)
    np.testing.assert_array_equal(to_levels(x, levels), every)
    in_numpy = to_levels(np.asarray(x), levels)
    assert isinstance(in_numpy, np.ndarray)
    np.testing.assert_array_equal(in_numpy, every)


@pytest.mark.parametrize("levels", [17, 256])
def test_levels_are_the_nearest_and_clipped(levels):
    half_bin = 1 / (levels - 1)
    every = np.arange(levels)
    x = 2 * every / (levels - 1) - 1
    np.testing.assert_array_equal(to_levels(x + 0.99 * half_bin, levels), every)
    np.testing.assert_array_equal(to_levels(x - 0.99 * half_bin, levels), every)
    assert to_levels(np.array([-9.0, 9.0]), levels).tolist() == [0, levels - 1]


def test_a_flip_depends_on_its_own_key_only():
    keys = jax.random.split(jax.random.key(0), 64)
    x = jax.random.normal(jax.random.key(1), (64, 4, 5, 3))
    flipped = jax.jit(random_flip)(keys, x)
    np.testing.assert_array_equal(random_flip(keys[10:13], x[10:13]), flipped[10:13])
    np.testing.assert_array_equal(random_flip(keys[::-1], x[::-1]), flipped[::-1])


def test_flips_mirror_about_half_of_the_images():
    keys = jax.random.split(jax.random.key(0), 1000)
    x = np.tile(np.arange(4.0).reshape(1, 1, 4, 1), (1000, 2, 1, 1))
    flipped = np.asarray(random_flip(keys, x))
    mirrored = (flipped == x[:, :, ::-1]).all((1, 2, 3))
    assert (mirrored | (flipped == x).all((1, 2, 3))).all()
    assert 440 < mirrored.sum() < 560
