"""What a process no longer needs goes back to the system."""

import subprocess
import sys

import pytest

HEMMED = """
from benchmarks import process_memory
from diffusion_jax.allocator import give_back
import numpy as np

blocks = [np.ones(2**11) for _ in range(2**14)]
held, blocks = blocks[::64], None
before = process_memory.resident_bytes()
give_back()
print(before - process_memory.resident_bytes())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_what_is_free_between_other_blocks_is_given_back():
    ran = subprocess.run([sys.executable, "-c", HEMMED], capture_output=True, text=True, check=True)
    assert int(ran.stdout) > 200 * 2**20  # of 256 MiB, held in one block of 64
