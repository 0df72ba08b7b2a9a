"""Tables and per-image numbers broadcast with images of any shape; tables are cut into pieces."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.core.arrays import (
    PIECES,
    expand,
    lookup,
    materialized,
    mean_event,
    pieces,
    sum_event,
)


@pytest.mark.parametrize("lead", [(), (3,), (2, 3)])
def test_numbers_of_images_meet_every_pixel_of_theirs(lead):
    x = jax.random.normal(jax.random.key(0), (*lead, 4, 5, 2))
    t = jax.random.randint(jax.random.key(1), lead, 0, 7)
    table = np.linspace(0.1, 0.9, 7)
    assert expand(t, x).shape == (*lead, 1, 1, 1)
    row = np.asarray(table[np.asarray(t)]).reshape(*lead, 1, 1, 1)
    np.testing.assert_allclose(lookup(table, t, x), row, rtol=1e-7)
    pixels = np.float64(x).reshape(*lead, -1)
    np.testing.assert_allclose(sum_event(x, t), pixels.sum(-1), rtol=1e-5)
    np.testing.assert_allclose(mean_event(x, t), pixels.mean(-1), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
def test_tables_are_read_in_float32_at_least(dtype):
    assert lookup(np.ones(3), jnp.array(1), jnp.ones(2, dtype)).dtype == jnp.float32


def test_tables_keep_the_digits_of_float64_images():
    with jax.enable_x64(True):
        found = lookup(np.array([1.0 / 3.0]), jnp.array(0), jnp.ones(2, jnp.float64))
        assert float(found[0]) == 1.0 / 3.0


@pytest.mark.parametrize("length", [1, 2, 4, 5, 19, 20, 21, 23, 25, 46, 60, 77, 1000, 1009])
def test_pieces_are_equal_where_a_divisor_allows(length):
    """Their number is the largest divisor from 5 to 20; without one, their size that of 20."""
    table = {"a": np.arange(length), "b": np.ones((length, 2))}
    cut = pieces(table)
    np.testing.assert_array_equal(np.concatenate([piece["a"] for piece in cut]), table["a"])
    sizes = [len(piece["b"]) for piece in cut]
    divisors = [n for n in range(5, PIECES + 1) if length % n == 0]
    if divisors:
        assert sizes == [length // max(divisors)] * max(divisors)
    else:
        size = int(np.ceil(length / PIECES))
        assert sizes[:-1] == [size] * (len(sizes) - 1)
        assert 1 <= sizes[-1] <= size


def test_arrays_are_materialized_on_a_cpu_alone():
    arrays = {"a": jnp.arange(3.0), "b": jnp.ones(2)}
    jax.tree.map(np.testing.assert_array_equal, materialized(arrays), arrays)
    program = str(jax.make_jaxpr(materialized)(arrays))
    assert ("optimization_barrier" in program) == (jax.default_backend() == "cpu")
