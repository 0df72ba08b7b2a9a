"""Ctrl-C from the first moment on: while modules load, and where exceptions are dropped."""

import signal
import subprocess
import sys

import pytest
from tiny import ROOT


@pytest.mark.parametrize("command", ["train.py", "sample.py", "evaluate.py"])
def test_ctrl_c_while_modules_load(command):
    """`-X importtime` reports each module when it has been loaded."""
    process = subprocess.Popen(
        [sys.executable, "-X", "importtime", str(ROOT / command), "--help"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr
    lines = []
    for line in process.stderr:
        lines.append(line)
        if lines[-1].endswith("diffusion_jax.start\n"):
            break
    next(process.stderr)  # `start` has begun to load others
    process.send_signal(signal.SIGINT)
    rest = process.stderr.read()
    assert process.wait() == 128 + signal.SIGINT
    assert rest.splitlines()[-1] == "interrupted before anything began"
    assert "Traceback" not in rest
    assert "jax._src.interpreters" not in rest  # it did not go on


DROPPED = """
import os, signal, time
from diffusion_jax import start
signal.signal(signal.SIGINT, start._interrupt)

def _xla_gc_callback():
    signal.raise_signal(signal.SIGINT)
    return "unharmed"

print(_xla_gc_callback(), flush=True)
try:
    time.sleep(30)
except KeyboardInterrupt:
    print("interrupted later", flush=True)
"""


def test_ctrl_c_is_not_lost_in_a_callback():
    """Python prints and drops what such a callback raises."""
    done = subprocess.run([sys.executable, "-c", DROPPED], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.splitlines() == ["unharmed", "interrupted later"]
    assert (done.returncode, done.stderr) == (0, "")
