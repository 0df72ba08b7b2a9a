"""A CPU's cores as devices, for what is computed image by image."""

import os
from contextlib import suppress

import jax

MOST = 8  # each holds a copy of the parameters


def each_core_a_device() -> None:
    """Make 1, 2, 4 or 8 CPU cores a JAX device each; call it before JAX creates its devices.

    A small network's programs take tenths of a millisecond, too little to share among threads:
    with half of the images each, two cores draw 1.2 to 1.3 times as many. Powers of two, because
    batches divide by them. An explicit count in JAX_NUM_CPU_DEVICES or XLA_FLAGS is respected; set
    one where a container may use fewer cores than it sees.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if "JAX_NUM_CPU_DEVICES" in os.environ or "xla_force_host_platform_device_count" in flags:
        return
    with suppress(RuntimeError):  # a process that has devices keeps them
        jax.config.update("jax_num_cpu_devices", _power_of_two(min(_cores(), MOST)))


def _cores() -> int:
    usable = getattr(os, "sched_getaffinity", None)  # not on every system
    return len(usable(0)) if usable else os.cpu_count() or 1


def _power_of_two(most: int) -> int:
    return 1 << (most.bit_length() - 1)
