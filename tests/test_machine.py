"""What is set for the machine is known to its compiler, and changes no number but by rounding."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax import machine


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="the options are a CPU's")
def test_the_compiler_takes_its_options():
    """If a new JAX no longer does, training still runs, slower: here it is noticed."""
    assert machine.compiler_options() == machine.OPTIONS["cpu"]


@pytest.fixture
def forgotten():
    """Options not asked for yet, and forgotten after."""
    machine.compiler_options.cache_clear()
    yield
    machine.compiler_options.cache_clear()


@pytest.mark.usefixtures("forgotten")
def test_options_that_a_compiler_does_not_know_are_left_out(monkeypatch):
    monkeypatch.setattr(machine, "OPTIONS", {jax.default_backend(): {"xla_no_such_option": "1"}})
    assert machine.compiler_options() == {}


def test_options_change_sums_by_rounding_alone():
    x = jax.random.normal(jax.random.key(0), (4, 16, 16, 32))
    total = jax.jit(lambda x: jnp.sum(x, (0, 1, 2))).lower(x)
    plain, tuned = (total.compile(compiler_options=o)(x) for o in ({}, machine.compiler_options()))
    np.testing.assert_allclose(tuned, plain, rtol=1e-4, atol=1e-4)


FAULTS = """
import resource, sys
import jax, jax.numpy as jnp
from diffusion_jax import machine
machine.keep_freed_memory()
x = jnp.ones((256, 256, 256))  # 64 MiB, larger than an arena of a thread may get
f = jax.jit(lambda x: jnp.sort(jnp.sin(x), axis=0)[0] + jnp.sort(jnp.cos(x), axis=0)[0])
for _ in range(4):
    f(x).block_until_ready()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
f(x).block_until_ready()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_a_programs_temporary_memory_is_mapped_once():
    """After the first calls, none of its 16,384 pages is a fault."""
    ran = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True)
    assert int(ran.stdout) < 500
