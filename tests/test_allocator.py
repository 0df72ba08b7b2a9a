"""Memory goes back to the system where that is right, and stays where a program needs it again."""

import os
import subprocess
import sys

import pytest

from diffusion_jax.devices.allocator import KEPT_BLOCKS

HEMMED = """
from benchmarks.harness import process_memory
from diffusion_jax.devices.allocator import give_back
import numpy as np

blocks = [np.ones(2**11) for _ in range(2**14)]
held, blocks = blocks[::64], None
before = process_memory.resident_bytes()
give_back()
print(before - process_memory.resident_bytes())
"""


@pytest.mark.pinned
def test_what_is_free_between_other_blocks_is_given_back():
    ran = subprocess.run([sys.executable, "-c", HEMMED], capture_output=True, text=True, check=True)
    assert int(ran.stdout) > 200 * 2**20  # of 256 MiB, of which every 64th block stays


CALLS = """
import resource
import jax, jax.numpy as jnp
from diffusion_jax.devices import sharding

def make_step():
    return lambda matrix, x: (matrix, jnp.sin(x) @ matrix)

matrix, x = jnp.ones((4096, 16)), jnp.ones((2560, 4096))
parallel = sharding.data_parallel(make_step, "jit", jax.devices()[:1], len(x), matrix).compile(x)
matrix, x = parallel.place_state(matrix), parallel.place_batch(x)

def faults():
    global matrix
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    matrix, y = parallel.step(matrix, x)
    y.block_until_ready()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

print(parallel.step.memory_analysis().temp_size_in_bytes)
print(sorted([faults() for _ in range(15)][4:])[5])
"""


def calls(**more):
    """Bytes of temporary memory and the median of page faults of a step's later calls."""
    rest = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    rest.pop("GLIBC_TUNABLES", None)
    command = [sys.executable, "-c", CALLS]
    ran = subprocess.run(command, env=rest | more, capture_output=True, text=True, check=True)
    return map(int, ran.stdout.split())


@pytest.mark.pinned
def test_a_small_steps_temporary_memory_is_mapped_once():
    """It is 40 MiB: 10,240 pages, each a fault in every call if they were given back.

    The median of later calls: at first some find the last one's memory taken, and map their own.
    """
    temporary, kept = calls()
    assert temporary in KEPT_BLOCKS
    _, left = calls(MALLOC_ARENA_TEST="8")  # who says anything is left alone
    if left < 5000:
        pytest.skip("pages are huge here")
    assert kept < 1000
