"""One of several processes: python peer.py SCENE[:VALUE] COORDINATOR|detect COUNT INDEX [PATIENCE]

It says on stdout how far it is, so that a test can kill it there, and ends as a command does.
"""

import time

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from diffusion_jax.command_line import run
from diffusion_jax.errors import Diverged, UserError
from diffusion_jax.processes import cluster

FOREVER = 100  # seconds; nothing here is waited for that long


def say(*words):
    print(*words, flush=True)


def steps(count, wait=()):
    """Take the mean over all processes again and again; those in `wait` leave the others alone."""
    mesh = jax.make_mesh((jax.device_count(),), ("data",))
    split, whole = (NamedSharding(mesh, PartitionSpec(*axis)) for axis in (["data"], []))
    mean = jax.jit(lambda x: x.mean(), out_shardings=whole)
    own = np.full((jax.local_device_count(), 8), jax.process_index(), np.float32)
    for step in range(1, count + 1):
        value = float(mean(jax.make_array_from_process_local_data(split, own)))
        cluster.note(step)
        if step == 3:
            say("ready", value)
            if jax.process_index() in wait:
                time.sleep(FOREVER)


def compute():
    steps(10**9)


def hang():
    """A survivor hangs in a collective that process 1 never enters."""
    steps(4, wait=[1])


def work_on_host():
    steps(3)
    while True:  # never gives up the interpreter by itself
        sum(range(1000))


def compile_long():
    def deep(x):
        for _ in range(1500):
            x = jax.numpy.sin(x @ x)
        return x

    lowered = jax.jit(deep).lower(np.ones((8, 8), np.float32))
    say("ready")
    lowered.compile()
    time.sleep(FOREVER)


def stay(index):
    """All leave but one."""
    steps(3, wait=[int(index)])


def finish():
    steps(20)


def diverge():
    """All come to the same end, one of them later."""
    steps(20)
    time.sleep(jax.process_index())
    raise Diverged("training diverged")


def refuse():
    say("ready", cluster.on_first_process(lambda: ["text", 7]))

    def locked():
        raise UserError("the folder is locked")

    cluster.on_first_process(locked)


def fail_alone():
    steps(3)
    if jax.process_index() == 1:
        raise UserError("data.dir is missing")
    time.sleep(FOREVER)


def crash_alone():
    steps(3)
    if jax.process_index() == 0:
        raise RuntimeError("a bug")
    time.sleep(FOREVER)


def main(given):
    scene, coordinator, count, index, *timeout = given
    place = (None, None, None) if coordinator == "detect" else (coordinator, int(count), int(index))
    cluster.join(*place, *map(float, timeout))
    name, *value = scene.split(":")
    globals()[name](*value)


if __name__ == "__main__":
    run(main)
