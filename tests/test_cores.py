"""Sampling and evaluating make each core a device, unless told how many there are."""

import os
import subprocess
import sys

import jax
import pytest

from diffusion_jax.cores import MOST, each_core_a_device

COUNT = """
from diffusion_jax.cores import each_core_a_device
import jax

each_core_a_device()
print(len(jax.devices("cpu")))
"""
FLAG = "--xla_force_host_platform_device_count=5"


@pytest.mark.parametrize(
    ("said", "count"),
    [
        ({}, min(MOST, len(os.sched_getaffinity(0)))),
        ({"JAX_NUM_CPU_DEVICES": "3"}, 3),
        ({"XLA_FLAGS": FLAG}, 5),
    ],
)
def test_there_are_as_many_devices_as_cores_or_as_was_said(said, count):
    names = ("XLA_FLAGS", "JAX_NUM_CPU_DEVICES")
    rest = {name: value for name, value in os.environ.items() if name not in names}
    run = subprocess.run(
        [sys.executable, "-c", COUNT], env=rest | said, capture_output=True, text=True, check=True
    )
    assert int(run.stdout) == count


def test_a_process_keeps_the_devices_it_has(monkeypatch):
    before = jax.devices()
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    each_core_a_device()
    assert jax.devices() == before
