"""Every image's randomness is its own: a function of seed, stream, step and index alone."""

import jax
import jax.numpy as jnp
import numpy as np

from diffusion_jax.core.keys import (
    Stream,
    fold,
    image_keys,
    image_normal,
    image_uniform,
    stream_key,
)

KEY = jax.random.key(3)
KEYS = jax.random.split(KEY, 5)


def same(left, right):
    return np.array_equal(jax.random.key_data(left), jax.random.key_data(right))


def test_streams_begin_at_step_0():
    key = jax.random.fold_in(jax.random.fold_in(KEY, Stream.NOISE), 0)
    assert same(stream_key(3, Stream.NOISE), key)
    assert same(stream_key(3, Stream.NOISE, 0), key)
    assert not same(stream_key(3, Stream.NOISE, 1), key)
    assert not same(stream_key(4, Stream.NOISE), key)
    assert not same(stream_key(3, Stream.FLIP), key)


def test_folding_treats_every_image_alike():
    folded = fold(KEYS, 7)
    for i in range(5):
        assert same(folded[i], jax.random.fold_in(KEYS[i], 7))


def test_an_images_key_depends_on_its_index_alone():
    keys = image_keys(KEY, jnp.array([4, 0, 9]))
    for i, index in enumerate((4, 0, 9)):
        assert same(keys[i], jax.random.fold_in(KEY, index))


def test_an_images_noise_depends_on_its_key_alone():
    normal, uniform = image_normal(KEYS, (2, 3)), image_uniform(KEYS)
    for i in range(5):
        np.testing.assert_array_equal(normal[i], jax.random.normal(KEYS[i], (2, 3)))
        np.testing.assert_array_equal(uniform[i], jax.random.uniform(KEYS[i]))
