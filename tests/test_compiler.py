"""What is set for the machine is known to its compiler, and changes no number but by rounding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.devices import compiler


@pytest.mark.pinned
def test_the_compiler_takes_its_options():
    """If a new JAX no longer does, training still runs, slower: here it is noticed."""
    assert compiler.compiler_options() == compiler.OPTIONS["cpu"]


@pytest.fixture
def forgotten():
    """Options not asked for yet, and forgotten after."""
    compiler.compiler_options.cache_clear()
    yield
    compiler.compiler_options.cache_clear()


@pytest.mark.usefixtures("forgotten")
def test_options_that_a_compiler_does_not_know_are_left_out(monkeypatch):
    monkeypatch.setattr(compiler, "OPTIONS", {jax.default_backend(): {"xla_no_such_option": "1"}})
    assert compiler.compiler_options() == {}


def test_options_change_sums_by_rounding_alone():
    x = jax.random.normal(jax.random.key(0), (4, 16, 16, 32))
    total = jax.jit(lambda x: jnp.sum(x, (0, 1, 2))).lower(x)
    plain, tuned = (total.compile(compiler_options=o)(x) for o in ({}, compiler.compiler_options()))
    np.testing.assert_allclose(tuned, plain, rtol=1e-4, atol=1e-4)
