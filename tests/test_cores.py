"""Sampling and evaluating make each core a device, unless told how many there are."""

import os
import subprocess
import sys

import jax
import pytest

from diffusion_jax.devices.cores import each_core_a_device

COUNT = """
from diffusion_jax.devices.cores import each_core_a_device
import jax

each_core_a_device()
print(len(jax.devices("cpu")))
"""
ENDED = """
from diffusion_jax.commands import {0}
from diffusion_jax.errors import UserError
import jax

try:
    {0}.main(["--workdir", "{1}"])
except UserError:
    print(len(jax.devices("cpu")))
"""
FLAG = "--xla_force_host_platform_device_count=5"


NAMES = ("XLA_FLAGS", "JAX_NUM_CPU_DEVICES")


def cores():
    """The largest power of two of cores that are there, up to 8."""
    usable = getattr(os, "sched_getaffinity", None)
    there = len(usable(0)) if usable else os.cpu_count()
    return max(n for n in (1, 2, 4, 8) if n <= there)


def counted(code, **said):
    rest = {name: value for name, value in os.environ.items() if name not in NAMES}
    command = [sys.executable, "-c", code]
    run = subprocess.run(command, env=rest | said, capture_output=True, text=True, check=True)
    return int(run.stdout)


def test_there_are_as_many_devices_as_cores_or_as_was_said():
    assert counted(COUNT) == cores()
    assert counted(COUNT, JAX_NUM_CPU_DEVICES="3") == 3
    assert counted(COUNT, XLA_FLAGS=FLAG) == 5


@pytest.mark.parametrize("command", ["sample", "evaluate"])
def test_the_commands_that_take_images_one_by_one_do_so(command, tmp_path):
    """In training all cores are one device, in these two not; here they end for want of a run."""
    assert counted(ENDED.format(command, str(tmp_path))) == cores()


def test_a_process_that_has_devices_does_not_mind(monkeypatch):
    before = jax.devices()
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    each_core_a_device()
    assert jax.devices() == before
