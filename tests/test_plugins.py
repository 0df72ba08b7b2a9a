"""A network and a schedule of one's own, outside the package: each one function and one line."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import flax.linen as nn
import numpy as np
import pytest
from tiny import ROOT

import diffusion_jax as dj
from diffusion_jax import configuration
from diffusion_jax.configuration.plugins import load_plugins

OWN = Path(__file__).parent / "data" / "own_network.py"
SHORT = ["--config.train.batch_size=8", "--config.train.log_every=1", "--config.schedule.steps=20"]


def called(script, *arguments):
    """A process of its own, since what a plugin registers stays."""
    command = [sys.executable, str(ROOT / f"{script}.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run of the network, trained by config in two sessions."""
    made = tmp_path_factory.mktemp("own") / "run"
    for steps in (3, 5):
        train = [f"--config={OWN}", f"--workdir={made}", *SHORT, f"--config.train.steps={steps}"]
        done = called("train", *train, "--config.model.slope=0.2")
        assert done.returncode == 0, done.stderr
    assert "after step 3" in done.stdout
    return made


def test_its_fields_are_keys_and_its_file_is_on_record(folder):
    record = json.loads((folder / "config.json").read_text())
    assert record["config"]["model"] == {"name": "convnet", "width": 6, "slope": 0.2}
    assert record["config"]["schedule"]["steepness"] == 12.0
    assert record["plugins"] == {"model.name": str(OWN), "schedule.name": str(OWN)}
    losses = [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").open()]
    assert len(losses) == 5
    assert np.isfinite(losses).all()


def test_it_samples_and_evaluates(folder, tmp_path):
    out = tmp_path / "x.npz"
    done = called("sample", f"--workdir={folder}", "--num=2", f"--out={out}", f"--plugins={OWN}")
    assert done.returncode == 0, done.stderr
    assert np.load(out)["arr_0"].shape == (2, 8, 8, 1)
    done = called("evaluate", f"--workdir={folder}", "--num=2", f"--plugins={OWN}")
    assert done.returncode == 0, done.stderr
    assert "bits/dim over 2 images" in done.stdout


def test_without_its_file_one_line_says_which_it_needs(folder):
    done = called("sample", f"--workdir={folder}")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "needs the function 'steep' of config.schedule.name, defined in" in done.stderr
    assert f"add --plugins={OWN}" in done.stderr


IN_A_SCRIPT = """
import sys
import diffusion_jax as dj
from diffusion_jax.core.schedules import linear

def straight(steps, end: float = 0.03):
    return linear(steps, 1e-4, end)

dj.SCHEDULES["straight"] = straight
name = {"name": "straight", "steps": 20}
few = {"channels": 8, "multipliers": (1,), "blocks": 1}
config = dj.config("digits", schedule=name, model=few, train={"steps": 1, "batch_size": 8})
dj.train(config, sys.argv[1])
"""


def test_a_function_of_a_script_or_notebook_has_no_file(tmp_path):
    script = [sys.executable, "-c", IN_A_SCRIPT, str(tmp_path / "run")]
    paths = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(script, capture_output=True, text=True, env=paths)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    with pytest.raises(dj.UserError, match=r"'straight' .* notebook or script; define it again"):
        dj.load(tmp_path / "run")


def test_a_run_does_not_need_what_it_did_not_use(monkeypatch):
    """A function that was merely registered when a run was trained leaves no trace in it."""

    def unused(schedule, steps: int, tilt: float = 0.5):
        """Build it."""

    with monkeypatch.context() as patch:
        patch.setitem(dj.GRIDS, "unused", unused)
        written = configuration.to_json(dj.config("digits"))
    assert configuration.from_json(configuration.modernised(written)) == dj.config("digits")


class WithoutTime(nn.Module):
    """A network that takes no time."""

    width: int = 4

    @nn.compact
    def __call__(self, x):
        return x


def test_a_network_that_cannot_be_called_is_named(monkeypatch):
    monkeypatch.setitem(dj.MODELS, "without", WithoutTime)
    with pytest.raises(dj.UserError, match=r"'without' cannot be called with images x .* times t"):
        dj.train(dj.config("digits", model={"name": "without"}))


def test_a_file_that_fails_is_one_line(tmp_path):
    broken = tmp_path / "broken.py"
    broken.write_text("import nothing_of_this_name\n")
    with pytest.raises(dj.UserError, match=r"plugin .*broken.py failed: ModuleNotFoundError"):
        load_plugins(broken)
    with pytest.raises(dj.UserError, match=r"no plugin file .*nowhere.py"):
        load_plugins([tmp_path / "nowhere.py"])


def test_an_output_of_another_shape_is_named(tmp_path):
    """The network has no variance output, so it cannot learn one."""
    learned = ["--config.variance=learned_range", "--config.loss=hybrid"]
    done = called("train", f"--config={OWN}", f"--workdir={tmp_path / 'run'}", *SHORT, *learned)
    assert done.returncode == 2
    assert "the network 'convnet' returns [8, 8, 8, 1] for images [8, 8, 8, 1]" in done.stderr
    assert "expected [8, 8, 8, 2]" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_copy_of_the_run_elsewhere_needs_the_file_too(folder, tmp_path):
    """It is named, not looked for: restoring imports nothing by itself."""
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    own = tmp_path / "mine.py"
    own.write_text(OWN.read_text())
    done = called("sample", f"--workdir={copy}", "--num=1", "--steps=2", f"--plugins={own}")
    assert done.returncode == 0, done.stderr
