"""The programs of a command find their temporary memory where the last call left it."""

import subprocess
import sys

import pytest

CALLS = """
import diffusion_jax.commands
import resource
import jax, jax.numpy as jnp

x, kernel = jnp.ones((4, 64, 64, 128)), jnp.ones((3, 3, 128, 128))
conv = lambda x: jax.lax.conv_general_dilated(
    x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
)
program = jax.jit(lambda x: conv(jnp.sin(conv(jnp.cos(x)))).sum((1, 2)))

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    program(x).block_until_ready()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

print(sorted([faults() for _ in range(31)][10:])[10])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_a_programs_temporary_memory_is_mapped_once():
    """It is 16 MiB: 4,096 pages, each a fault in every call if they were given back.

    The median of later calls: at first some find the last one's memory taken, and map their own.
    """
    ran = subprocess.run([sys.executable, "-c", CALLS], capture_output=True, text=True, check=True)
    assert int(ran.stdout) < 400


HEMMED = """
from benchmarks import process_memory
from diffusion_jax.allocator import give_back
import numpy as np

large, small = np.ones(2**24), np.ones(8)
large, after = None, np.ones(2**18)
before = process_memory.resident_bytes()
give_back()
print(before - process_memory.resident_bytes())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_what_is_free_between_other_blocks_is_given_back():
    ran = subprocess.run([sys.executable, "-c", HEMMED], capture_output=True, text=True, check=True)
    assert int(ran.stdout) > 100 * 2**20  # of the 128 MiB


MAPPED = """
from benchmarks import process_memory
from diffusion_jax.allocator import LARGE, make_room
import numpy as np

make_room({temporary})
large, small = np.ones(2**24), np.ones(8)
before = process_memory.resident_bytes()
large, after = None, np.ones(2**18)
print(before - process_memory.resident_bytes())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
@pytest.mark.parametrize(("temporary", "returned"), [("LARGE", True), ("LARGE - 1", False)])
def test_a_large_programs_temporary_memory_is_not_kept(temporary, returned):
    """Nor is that of a program beside it; where it is small, 128 MiB that are freed stay."""
    script = MAPPED.format(temporary=temporary)
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert (int(ran.stdout) > 100 * 2**20) == returned


ARENAS = """
import diffusion_jax.commands
import ctypes, threading

libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
threads = [threading.Thread(target=libc.malloc, args=(100_000,)) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
libc.fopen.restype = ctypes.c_void_p
libc.malloc_info(0, ctypes.c_void_p(libc.fopen(b"/dev/stdout", b"w")))
libc.fflush(None)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_threads_do_not_share_one_arena():
    """As a compiler's threads would: they took half as long again, and so did a training step."""
    ran = subprocess.run([sys.executable, "-c", ARENAS], capture_output=True, text=True, check=True)
    assert ran.stdout.count("<heap nr=") > 1
