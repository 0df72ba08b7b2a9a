"""Training in Python: the bits of the command, in a folder, in memory, or step by step."""

import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import ROOT, settings

import diffusion_jax as dj
from diffusion_jax.data.dataset import DataSpec

pytestmark = pytest.mark.usefixtures("hurried_compiler")


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def losses_of(folder):
    return [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").open()]


def test_training_gives_the_bits_of_the_command(folder, run, tmp_path):
    own = dj.train(settings(), tmp_path / "run")
    assert own.step == 6
    same(own.params, run.params)
    assert losses_of(tmp_path / "run") == losses_of(folder)


def test_the_loop_in_the_callers_hands_gives_the_same_bits(folder, run):
    losses = []
    for state, step in dj.steps(settings()):
        losses.append(float(step.loss))
        assert state.step == len(losses)
    assert losses == losses_of(folder)
    assert state.step == 6
    assert state.params["conv_in"]["kernel"].shape == (3, 3, 1, 8)
    same(jax.device_get(state.ema), jax.device_get(run.params))
    done = state.run()
    np.testing.assert_array_equal(done.sample(2), run.sample(2))


def test_arrays_in_memory_are_enough(test_split, capfd):
    fast = {"optimizer__warmup_steps": 0, "optimizer__learning_rate": 0.05}
    config = dj.config(settings(train__steps=4, **fast), model={"classes": 10})
    images, labels = test_split.images[:20], test_split.labels[:20]
    run = dj.train(config, images=images[..., 0], labels=labels, levels=17)
    assert (run.step, run.folder, run.data) == (4, None, DataSpec((8, 8, 1), 17, 10))
    assert run.sample(3, label=7, steps=3).shape == (3, 8, 8, 1)
    assert run.bits_per_dim(images[:2], labels[:2]).per_image.shape == (2,)
    with pytest.raises(dj.UserError, match="labels are missing: the network has 10 classes"):
        run.bits_per_dim(images[:2])
    with pytest.raises(dj.UserError, match=r"labels go up to 12; the network has classes 0..9"):
        run.bits_per_dim(images[:2], [3, 12])
    x = jax.random.normal(jax.random.key(0), (2, 8, 8, 1))
    seven = run.diffusion.denoise(run.params, jax.numpy.array([7, 7]), True)(x, jnp.array([5, 5]))
    np.testing.assert_allclose(run.denoise(x, 5, label=7).x0, seven.x0, atol=1e-4)
    assert np.abs(run.denoise(x, 5).x0 - seven.x0).max() > 1e-4
    assert capfd.readouterr() == ("", "")


def test_a_run_on_arrays_resumes(test_split, tmp_path):
    given = {"images": test_split.images[:20], "levels": 17}
    dj.train(settings(train__steps=2), tmp_path / "part", **given)
    two = dj.train(settings(train__steps=4), tmp_path / "part", **given)
    once = dj.train(settings(train__steps=4), tmp_path / "whole", **given)
    assert two.step == 4
    same(two.params, once.params)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"images": np.zeros((4, 8, 8))}, r"images are float64 \[4, 8, 8\]; expected uint8"),
        ({"images": np.zeros((0, 8, 8), np.uint8)}, "holds no images"),
        ({"images": np.ones((4, 8, 8), np.uint8), "levels": 1}, "levels is 1"),
        ({"labels": [1, 2]}, "labels and levels describe images: give images, too"),
        (
            {"images": np.ones((4, 8, 8), np.uint8), "levels": 2, "labels": [1.5] * 4},
            "labels are float64",
        ),
        (
            {"images": np.ones((4, 8, 8), np.uint8), "levels": 2, "labels": [0, -1, 0, 1]},
            "label 1 is -1",
        ),
        ({"images": np.full((4, 8, 8), 17, np.uint8), "levels": 17}, "outside the 17 levels"),
    ],
)
def test_arrays_that_do_not_fit_are_named(given, message):
    with pytest.raises(dj.UserError, match=message):
        dj.train(settings(train__steps=1), **given)


def test_forgotten_labels_are_named_and_useless_ones_too(test_split):
    given = {"images": test_split.images[:20], "levels": 17}
    with pytest.raises(dj.UserError, match="images have no labels; give labels, or use a config"):
        dj.train(dj.config(settings(), model={"classes": 10}), **given)
    with pytest.warns(UserWarning, match="labels have no effect: config.model.classes is 0"):
        next(dj.steps(settings(), **given, labels=test_split.labels[:20]))


def test_a_finished_run_has_no_fewer_steps(folder):
    with pytest.warns(UserWarning, match="has 6 steps already, more than the 4"):
        assert dj.train(settings(train__steps=4), folder).step == 6


def test_tables_and_data_sets_are_shown_in_one_line(run, test_split):
    assert repr(run.schedule).startswith("Schedule(20 steps, log-SNR ")
    assert repr(test_split) == "Dataset(360 images [8, 8, 1], 17 levels, 10 classes)"


def test_images_that_use_few_levels_are_suspicious(test_split):
    with pytest.warns(UserWarning, match=r"only levels 0\.\.16 of 0..255.*pass levels=17"):
        next(dj.steps(settings(), test_split.images))


@pytest.mark.parametrize(
    ("steps", "most", "message"),
    [
        (12, 2, "try a lower config"),
        (3, 1, "1 updates in a row were not finite"),  # noticed in the last steps, too
    ],
)
def test_divergence_is_an_exception(steps, most, message):
    config = settings(
        optimizer__learning_rate="1e30",
        train__steps=steps,
        train__max_skipped=most,
        optimizer__warmup_steps=0,
    )
    with pytest.raises(dj.Diverged, match=message):
        dj.train(config)


INTERRUPTED = """
import sys
import diffusion_jax as dj
from diffusion_jax import build
from tiny import settings
folder = sys.argv[1] or None
run = dj.train(settings(train__steps=100000, train__save_every=0), folder, progress=True)
print("returned", run.step, run.sample(1, steps=2).shape, flush=True)
"""


@pytest.mark.parametrize("in_folder", [True, False])
def test_ctrl_c_returns_the_run_so_far(in_folder, tmp_path):
    folder = str(tmp_path / "run") if in_folder else ""
    command = [sys.executable, "-u", "-c", INTERRUPTED, folder]
    paths = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=paths) as process:
        for line in process.stdout:
            if line.startswith("step 3/"):
                process.send_signal(2)
                break
        last = process.stdout.read().splitlines()[-1].split()
    assert process.returncode == 0
    assert last[0] == "returned"
    assert int(last[1]) >= 3
    if in_folder:
        assert dj.load(folder).step == int(last[1])
