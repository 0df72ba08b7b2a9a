"""Real trainers: `train.py` of the tiny run in one process or several, and what they leave."""

import os
import shutil
import subprocess

import jax
import numpy as np
from faults import metrics
from ports import free_port
from tiny import ROOT, Tiny, train

from diffusion_jax.checkpoints.storage import Checkpoints


def environment(devices):
    """The surroundings of a process with so many devices; nothing here needs fast code."""
    count = f"--xla_force_host_platform_device_count={devices}"
    return {**os.environ, "XLA_FLAGS": count, "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}


def start(workdir, processes=1, devices=1, **changes):
    """Start a run in so many processes with so many devices each; pipes for what they say."""
    place = [[]]
    if processes > 1:
        address = f"127.0.0.1:{free_port()}"
        several = [f"--coordinator={address}", f"--num_processes={processes}"]
        place = [[*several, f"--process_id={i}"] for i in range(processes)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    command = train(workdir, **changes)
    return [
        subprocess.Popen([*command, *each], cwd=ROOT, env=environment(devices), **pipes)
        for each in place
    ]


def finish(started):
    """Wait for them: a (code, stdout, stderr) of each."""
    said = [process.communicate(timeout=500) for process in started]
    return [(process.returncode, *each) for process, each in zip(started, said, strict=True)]


def run(workdir, **options):
    """Start and finish a run that has to end well."""
    for code, _, errors in finish(start(workdir, **options)):
        assert code == 0, errors


def copy(workdir, to):
    """The same run in another folder."""
    return shutil.copytree(workdir, to)


def state(workdir, step, **changes):
    """Everything a checkpoint holds, on the host."""
    like = jax.device_put(Tiny(**changes).state(), jax.devices()[0])
    return jax.tree.map(np.asarray, Checkpoints(workdir / "checkpoints", {}).restore(step, like))


def assert_same_run(one, other, step):
    """Bit for bit: every array of the checkpoint and every logged number."""
    assert metrics(one) == metrics(other)
    jax.tree.map(np.testing.assert_array_equal, state(one, step), state(other, step))
