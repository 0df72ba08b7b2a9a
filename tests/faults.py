"""Real training processes to be killed, starved and lied to, on one device and small."""

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import contextmanager, suppress

import jax
import numpy as np
import pytest
from tiny import ROOT, Tiny, settings, train

from diffusion_jax import build
from diffusion_jax.checkpoints import manifest, step_folders
from diffusion_jax.checkpoints.storage import Checkpoints

ONE_DEVICE = {
    **os.environ,
    "XLA_FLAGS": "--xla_force_host_platform_device_count=1",
    "PYTHONPATH": str(ROOT),
}
MANY = 10**6
SMALL = {"model__multipliers": "1", "model__attention_resolutions": 99}  # half of the start


def digits(folder):
    """The digits as a file: scikit-learn alone is a quarter of a tiny run's start."""
    data = build.source(settings(), "train").load()
    np.savez(folder / "digits.npz", images=data.images, labels=data.labels)
    return folder / "digits.npz"


def command(folder, data, **changes):
    """A command line that trains the tiny run on `data`, saving every second step."""
    base = {"train__save_every": 2, "data__name": "arrays", "data__dir": data, **SMALL}
    return train(folder, **{**base, **changes})


class Run:
    """A process that trains, its lines as they come, and what it says at its end."""

    def __init__(self, arguments):
        self.lines: list[str] = []
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115
        pipes = {"stdout": subprocess.PIPE, "stderr": self._errors, "text": True}
        self.process = subprocess.Popen(arguments, cwd=ROOT, env=ONE_DEVICE, **pipes)

    def until(self, text):
        """Read on to the next line that has `text` in it."""
        for line in self.process.stdout or ():
            self.lines.append(line.rstrip("\n"))
            if text in line:
                return self
        raise AssertionError(f"ended without '{text}': {self.lines[-5:]} {self.errors()}")

    def end(self, number=None):
        """Read to the end, perhaps of a signal; the exit code."""
        if number is not None:
            self.process.send_signal(number)
        out, _ = self.process.communicate(timeout=300)
        self.lines += out.splitlines()
        return self.process.returncode

    def errors(self):
        """The lines on stderr."""
        self._errors.seek(0)
        return self._errors.read().splitlines()

    def said(self, word):
        """The steps of which the lines say `word`: saved, NOT saved."""
        return [int(line.split()[1][:-1]) for line in self.lines if f": {word}" in line]


def finished(folder, data, **changes):
    """Train to the end, or go on to it: the run, without a complaint."""
    run = Run(command(folder, data, **changes))
    assert run.end() == 0, run.errors()
    assert run.errors() == []
    return run


def state(folder, step):
    """Every array of a checkpoint."""
    shapes = jax.eval_shape(Tiny(**SMALL).training.init, jax.random.key(0))
    like = jax.tree.map(lambda a: np.zeros(a.shape, a.dtype), shapes)
    return Checkpoints(folder, {}).restore(step, like)


def metrics(folder):
    """The lines of metrics.jsonl, but for the speed."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{**line, "images_per_second": None} for line in lines]


def assert_same_run(folder, straight, step):
    """Two runs that both ended with `step`: every array, and every logged line once."""
    ours, theirs = (state(each / "checkpoints", step) for each in (folder, straight))
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)
    assert [line["step"] for line in metrics(folder)] == list(range(1, step + 1))
    assert metrics(folder) == metrics(straight)


def newest(folder):
    """The newest good step of a run, without a word about any other; 0 if there is none."""
    warnings: list[str] = []
    found = step_folders.newest_good(folder / "checkpoints", warnings.append)
    assert warnings == []
    return found or 0


def names(folder):
    """What lies in the folder of checkpoints."""
    try:
        return sorted(os.listdir(folder / "checkpoints"))
    except FileNotFoundError:
        return []


def wait_for(sight, run):
    """Look again and again until there is something to see, while a process runs."""
    while run.process.poll() is None:
        if sight():
            return
        time.sleep(0.0003)
    raise AssertionError(f"ended before its time: {run.lines[-3:]} {run.errors()}")


MOMENTS = {
    "loop": lambda names: True,
    "arrays": lambda names: any("orbax-checkpoint-tmp" in name for name in names),
    "manifest": lambda names: any(name[7:].isdigit() for name in names if "saving-" in name),
    "clean-up": lambda names: any("trash-" in name for name in names),
}


def kill(folder, data, moment, rng):
    """Train on and kill -9 at a moment: what the kill left half-made, and what is whole.

    Whatever was said to be saved must be.

    Args:
        moment: "start", while the program starts or restores; or after some steps, anywhere in the
            "loop", while "arrays" are written, before the "manifest" is, in the "clean-up".
    """
    run = Run(command(folder, data, train__steps=MANY))
    if moment == "start":
        time.sleep(rng.uniform(0.0, 10.0))
    else:
        for _ in range(rng.integers(1, 12)):
            run.until("step ")
        wait_for(lambda: MOMENTS[moment](names(folder)), run)
    time.sleep({"loop": 0.5, "arrays": 0.1}.get(moment, 0.0) * rng.uniform())
    assert run.end(signal.SIGKILL) == -signal.SIGKILL
    assert run.errors() == []
    whole = newest(folder)
    assert whole >= max(run.said("saved"), default=0)
    return [name for name in names(folder) if not name.isdigit()], whole


def flip(path, position, bit=0):
    """Turn one bit of a file over."""
    content = bytearray(path.read_bytes())
    content[position] ^= 1 << bit
    path.write_bytes(content)


def largest(folder, pattern):
    """The largest of the files that match."""
    return max(folder.rglob(pattern), key=lambda path: path.stat().st_size)


def _manifest(step):
    return step / manifest.NAME


# Each takes the folder of a step.
DAMAGE = {
    "flipped bit in data": lambda step: flip(largest(step / "state", "d/*"), 1000),
    "flipped bit in metadata": lambda step: flip(step / "ema" / "_METADATA", 40),
    "flipped bit in the manifest": lambda step: flip(_manifest(step), 70),
    "flipped end of a line": lambda step: flip(
        _manifest(step), _manifest(step).read_bytes().index(b"\n")
    ),
    "truncated data": lambda step: os.truncate(largest(step / "ema", "d/*"), 100),
    "truncated manifest": lambda step: os.truncate(
        _manifest(step), _manifest(step).read_bytes().rindex(b"\n", 0, -1) + 1
    ),
    "empty manifest": lambda step: os.truncate(_manifest(step), 0),
    "missing file": lambda step: largest(step / "state", "d/*").unlink(),
    "missing folder": lambda step: shutil.rmtree(step / "ema"),
    "more than was written": lambda step: (step / "ema" / "d" / "0").touch(),
}


@contextmanager
def small_disk(place, options="size=2m"):
    """A file system of its own at `place`, as long as the context lasts."""
    place.mkdir(exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", place]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("may not mount a file system")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def fill(place, free=0):
    """Take all room but `free` bytes of a small disk with a file, which is returned."""
    ballast = place / "ballast"
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))
    os.truncate(ballast, ballast.stat().st_size - free)
    return ballast
