"""The Python API: three lines of Python do what a command does, bit for bit."""

import json
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
        (
            np.zeros((2, 8, 8, 1), np.uint8),
            [1],
            r"labels are int64 \[1\]; expected .* of shape \[2\]",
        ),
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
