"""The Python API: three lines of Python do what a command does, bit for bit."""

import json
import os
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from tiny import ROOT, run_inside, sample, settings, train

import diffusion_jax as dj
from diffusion_jax import build
from diffusion_jax.core.predictions import Denoised
from diffusion_jax.data.dataset import Dataset, DataSpec

pytestmark = pytest.mark.usefixtures("hurried_compiler")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run that the command trained."""
    made = tmp_path_factory.mktemp("run") / "digits"
    done = run_inside(train(made))
    assert done.returncode == 0, done.stderr
    return made


@pytest.fixture(scope="module")
def run(folder):
    return dj.load(folder)


@pytest.fixture(scope="module")
def test_split():
    return dj.load_data("digits", "test")


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


# Loading


def test_a_run_shows_what_it_is(run, folder):
    assert run.step == 6
    assert run.folder == folder
    assert run.schedule.steps == 20
    assert run.config.model.channels == 8
    assert run.data.shape == (8, 8, 1)
    assert "step=6" in repr(run)


def test_the_parameters_are_the_networks_own_tree(run):
    shapes = jax.tree.map(np.shape, run.params)
    assert shapes == jax.tree.map(np.shape, run.diffusion.shapes)
    assert run.params["conv_in"]["kernel"].shape == (3, 3, 1, 8)
    on_host = jax.device_get(run.params)
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(on_host))


def test_an_earlier_checkpoint_and_raw_parameters(run, folder):
    assert dj.load(folder, step=3).step == 3
    raw = dj.load(folder, raw=True)
    assert not np.array_equal(raw.params["conv_in"]["kernel"], run.params["conv_in"]["kernel"])


def test_a_run_without_optimiser_state_samples_and_evaluates(run, folder, test_split, tmp_path):
    """A colleague's copy, say; resuming says why it cannot."""
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    for step in (copy / "checkpoints").iterdir():
        shutil.rmtree(step / "state")
    theirs = dj.load(copy)
    np.testing.assert_array_equal(theirs.sample(2, steps=5), run.sample(2, steps=5))
    few = test_split.images[:2]
    assert theirs.bits_per_dim(few).mean == run.bits_per_dim(few).mean
    with pytest.raises(dj.UserError, match=r"optimiser state .* is missing"):
        dj.load(copy, step=6, raw=True)
    skipped = pytest.warns(UserWarning, match="is damaged and skipped: its optimiser state")
    with skipped, pytest.raises(dj.UserError, match="is damaged: its optimiser state"):
        dj.load(copy, raw=True)
    done = run_inside(train(copy, train__steps=8))
    assert done.returncode == 2
    assert "its optimiser state (state/) is missing, so training cannot resume" in done.stderr


def test_loading_what_is_no_run_is_one_line(folder, tmp_path):
    with pytest.raises(dj.UserError, match=r"no run in .*config.json is missing"):
        dj.load(tmp_path)
    newer = tmp_path / "newer"
    shutil.copytree(folder, newer)
    record = json.loads((newer / "config.json").read_text())
    (newer / "config.json").write_text(json.dumps({**record, "format": 99}))
    with pytest.raises(dj.UserError, match=r"has format 99.*install a newer version"):
        dj.load(newer)
    with pytest.raises(dj.UserError, match="step is '6'; expected a whole number"):
        dj.load(folder, step="6")
    with pytest.raises(dj.UserError, match=r"no checkpoint of step 5 in .*; there are: 3, 6"):
        dj.load(folder, step=5)


# Sampling


@pytest.mark.parametrize(
    ("given", "arguments"),
    [
        ({}, ()),
        (
            {"seed": 3, "sampler": "dpmpp_2m", "steps": 7},
            ("--seed=3", "--sampler=dpmpp_2m", "--steps=7"),
        ),
        ({"grid": "karras", "rho": 3.0}, ("--grid=karras", "--config.sample.rho=3")),
    ],
)
def test_the_images_are_those_of_the_command(run, folder, tmp_path, given, arguments):
    done = run_inside(sample(folder, "--num=5", f"--out={tmp_path / 'x.npz'}", *arguments))
    assert done.returncode == 0, done.stderr
    images = run.sample(5, **given)
    assert images.dtype == np.uint8
    assert images.shape == (5, 8, 8, 1)
    np.testing.assert_array_equal(images, np.load(tmp_path / "x.npz")["arr_0"])


def test_numpys_numbers_are_numbers(run):
    np.testing.assert_array_equal(run.sample(np.int64(2), seed=np.uint8(1)), run.sample(2, seed=1))


def test_steered_images_are_those_of_the_command(run, folder, tmp_path):
    image, mask = run.sample(1, seed=9)[0], np.zeros((8, 8), bool)
    mask[:4] = True
    Image.fromarray(image[..., 0]).save(tmp_path / "image.png")
    Image.fromarray(mask).save(tmp_path / "mask.png")
    for given, arguments in (
        ({"source": image, "strength": 0.5}, ("--from={}/image.png", "--strength=0.5")),
        ({"known": image, "mask": mask}, ("--inpaint={}/image.png", "--mask={}/mask.png")),
    ):
        flags = [each.format(tmp_path) for each in arguments]
        done = run_inside(sample(folder, "--num=2", f"--out={tmp_path / 'x.npz'}", *flags))
        assert done.returncode == 0, done.stderr
        np.testing.assert_array_equal(run.sample(2, **given), np.load(tmp_path / "x.npz")["arr_0"])


def test_steering_takes_images(run):
    image = run.sample(1)[0]
    mask = np.zeros((8, 8), bool)
    mask[:4] = True
    kept = run.sample(2, known=image, mask=mask, steps=5)
    np.testing.assert_allclose(kept[:, 4:], np.broadcast_to(image[4:], (2, 4, 8, 1)), atol=1)
    assert run.sample(2, source=image, strength=0.5).shape == (2, 8, 8, 1)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"num": 0}, "num is 0; it must lie between 1 and"),
        ({"num": 2.5}, "num is 2.5; expected a whole number"),
        ({"seed": -1}, "seed is -1"),
        ({"sampler": "euler"}, "unknown config.sample.sampler 'euler'; known: ancestral, ddim"),
        ({"step": 5}, "no config key 'sample.step'; the nearest is 'sample.steps'"),
        ({"steps": 21}, "steps is 21; the run has only 20 steps"),
        ({"steps": "many"}, "config.sample.steps is 'many'; expected an integer"),
        ({"label": 3}, "class 3: the run has no classes"),
        ({"mask": np.zeros((8, 8), bool)}, "known and mask belong together"),
        ({"source": np.zeros((8, 8, 1))}, r"source is float64 \[8, 8, 1\]; expected a uint8 image"),
        ({"strength": 0.5}, "strength is the noise added to source"),
        ({"eta": 0.5}, "config.sample.eta has no effect here; it is for 'ddim'"),
        ({"rho": 5.0}, "config.sample.rho has no effect here; it is for 'karras'"),
    ],
)
def test_bad_arguments_of_sample_are_one_line(run, given, message):
    with pytest.raises(dj.UserError, match=message):
        run.sample(**{"num": 1, **given})


def test_steps_are_those_of_the_schedule_itself():
    """A list of betas says how many there are, whatever `schedule.steps` is."""
    config = settings(schedule__name="betas", schedule__betas="0.1,0.2,0.3")
    diffusion = build.diffusion(config, DataSpec((8, 8, 1), 17, 10))
    short = dj.Run(config, diffusion, diffusion.init(jax.random.key(0)), 0)
    with pytest.raises(dj.UserError, match="steps is 4; the run has only 3 steps"):
        short.sample(1, steps=4)


# Likelihood


def test_the_bits_are_those_of_the_command(run, folder, test_split, tmp_path):
    out = tmp_path / "report.json"
    command = [sys.executable, str(ROOT / "evaluate.py"), f"--workdir={folder}"]
    done = run_inside([*command, "--num=5", f"--out={out}"])
    assert done.returncode == 0, done.stderr
    report = json.loads(out.read_text())
    bits = run.bits_per_dim(test_split.images[:5], test_split.labels[:5])
    total = report["bits_per_dim"].pop("total")
    assert (bits.mean, bits.stderr) == (total["mean"], total["stderr"])
    assert bits.terms == report["bits_per_dim"]
    assert bits.per_timestep == report["per_timestep"]
    assert bits.per_image.shape == (5,)
    assert bits.per_image.mean() == pytest.approx(bits.mean, rel=1e-6)
    assert str(bits) in done.stdout


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (
            np.zeros((2, 8, 8)),
            None,
            r"images are float64 \[2, 8, 8, 1\]; expected integer levels 0..16",
        ),
        (np.zeros((2, 9, 8, 1), np.uint8), None, r"expected .* uint8 \[n, 8, 8, 1\]"),
        (np.full((2, 8, 8, 1), 17, np.uint8), None, r"levels 17..17; the run's data had 0..16"),
        (np.zeros((0, 8, 8, 1), np.uint8), None, "holds no images"),
        (np.zeros((2, 8, 8, 1), np.uint8), [1], r"labels are int64 \[1\]; expected .*, \[2\]"),
    ],
)
def test_images_that_do_not_fit_are_named(run, images, labels, message):
    with pytest.raises(dj.UserError, match=message):
        run.bits_per_dim(images, labels)


def test_other_settings_of_an_evaluation(run):
    other = run.configured(variance="fixed_small", decoder="clipped", sample={"clip": False})
    assert (other.config.variance, run.config.variance) == ("fixed_small", "fixed_large")
    assert not np.array_equal(
        other.diffusion.reverse.log_var.offset, run.diffusion.reverse.log_var.offset
    )
    with pytest.raises(dj.UserError, match=r"config.model.blocks cannot change after training"):
        run.configured(model={"blocks": 2})
    with pytest.raises(dj.UserError, match="'learned_range' is never trained by"):
        run.configured(variance="learned_range")


# The denoiser


def test_the_denoiser_splits_x_into_image_and_noise(run):
    x = jax.random.normal(jax.random.key(0), (3, 8, 8, 1))
    t = jnp.array([0, 7, 19])
    x0, eps, var_output = run.denoise(x, t)
    assert var_output is None
    signal, noise = (
        jnp.asarray(a)[t].reshape(-1, 1, 1, 1) for a in (run.schedule.signal, run.schedule.noise)
    )
    np.testing.assert_allclose(signal * x0 + noise * eps, x, atol=1e-4)
    assert isinstance(run.denoise(x, 7), Denoised)  # one t for all
    own = run.diffusion.denoise(run.params, None, run.config.sample.clip)(x, t)
    np.testing.assert_allclose(x0, own.x0, atol=1e-4)
    np.testing.assert_allclose(run.denoise(x[1:2], 7).x0, x0[1:2], atol=1e-4)
    gradient = jax.jit(jax.grad(lambda x: run.denoise(x, t).x0.sum()))(x)
    assert gradient.shape == x.shape
    traced = jax.jit(lambda x, t: run.denoise(x, t).x0)(x, t)
    np.testing.assert_allclose(traced, x0, atol=1e-4)


@pytest.mark.parametrize(
    ("shape", "t", "message"),
    [
        ((8, 8, 1), 7, r"x_t is \[8, 8, 1\]; expected \[b, 8, 8, 1\]"),
        ((2, 8, 8, 1), 0.9, r"t is float32 \[\]; expected integers 0..19, one or \[2\]"),
        ((2, 8, 8, 1), [1, 2, 3], r"t is int32 \[3\]; expected integers"),
        ((2, 8, 8, 1), [3, 20], r"t is 3..20; the run's steps are 0..19"),
        ((2, 8, 8, 1), -1, r"t is -1..-1; the run's steps"),
    ],
)
def test_bad_arguments_of_denoise_are_one_line(run, shape, t, message):
    with pytest.raises(dj.UserError, match=message):
        run.denoise(np.zeros(shape), t)


# Training


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


# Configurations


def test_a_configuration_with_changes():
    config = dj.config("digits:conditional", seed=1, model={"channels": 16}, train={"steps": 200})
    assert (config.seed, config.model.channels, config.model.classes) == (1, 16, 10)
    assert config.name == "digits_conditional"
    with pytest.raises(dj.UserError, match=r"no config key 'model.chanels'; .* 'model.channels'"):
        dj.config("digits", model={"chanels": 16})
    with pytest.raises(dj.UserError, match=r"config.train.steps is 0; it must be between 1"):
        dj.config("digits", train={"steps": 0})
    with pytest.raises(dj.UserError, match=r"model.channels is 3; it must be even"):
        dj.config("digits", model={"channels": 3})


def test_the_door_lists_what_it_offers():
    for name in dj.__all__:
        assert getattr(dj, name) is not None
        assert name in dir(dj)
    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        dj.lod  # noqa: B018


def test_importing_a_part_does_not_import_the_rest():
    command = "import sys, diffusion_jax.data.stream; print('orbax' in str(sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "False", done.stderr


def test_a_dataset_is_what_training_sees(test_split):
    assert isinstance(test_split, Dataset)
    assert (len(test_split.images), test_split.levels) == (360, 17)
    assert len(dj.load_data(settings()).images) == 1437
