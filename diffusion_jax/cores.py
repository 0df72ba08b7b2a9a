"""A CPU's cores as devices, for what is computed image by image."""

import os
from contextlib import suppress

import jax

MOST = 8  # each holds a copy of the parameters


def each_core_a_device() -> None:
    """Have JAX make each core of a CPU a device, up to 8; to be called before it has any device.

    A small network's programs take tenths of a millisecond, too little to share among threads:
    with half of the images each, two cores draw 1.3 times as many. Where JAX_NUM_CPU_DEVICES or
    XLA_FLAGS say how many devices there are, so many there are.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if "JAX_NUM_CPU_DEVICES" in os.environ or "xla_force_host_platform_device_count" in flags:
        return
    usable = getattr(os, "sched_getaffinity", None)  # not on every system
    cores = len(usable(0)) if usable else os.cpu_count() or 1
    with suppress(RuntimeError):  # a process that has devices keeps them
        jax.config.update("jax_num_cpu_devices", min(cores, MOST))
