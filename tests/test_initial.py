"""A run that begins with the weights of another one."""

import json
import shutil

import jax
import numpy as np
import pytest
from own_pictures import script
from tiny import flags, run_inside, settings

import diffusion_jax as dj
from diffusion_jax import build
from diffusion_jax.devices import sharding
from diffusion_jax.models.packing import unpack_on_host
from diffusion_jax.run import initial
from diffusion_jax.run.prepare import open_data, read_and_compile

pytestmark = pytest.mark.usefixtures("hurried_compiler")
CLASSES = {"model__classes": 10, "train__label_dropout": 0.1}


@pytest.fixture(scope="module")
def old(tmp_path_factory, hurried_compiler):
    """A conditional run of 6 steps with checkpoints at 3 and 6."""
    folder = tmp_path_factory.mktemp("old") / "run"
    done = run_inside(script("train", f"--workdir={folder}", *flags(**CLASSES)))
    assert done.returncode == 0, done.stderr
    return folder


def begun(init, **changes):
    """Parameters and average of a run that begins with others, before its first step."""
    config, lines = settings(**changes), []
    source, diffusion = open_data(config, None, lines.append)
    weights = initial.weights(str(init), config, diffusion, lines.append)
    training = build.training(config, diffusion)
    prepared = read_and_compile(config, source, training, fresh=True)
    state = prepared.parallel.single(prepared.parallel.place_state(prepared.begin(weights)))
    params, ema = (
        unpack_on_host(jax.device_get(tree), diffusion.shapes) for tree in (state.params, state.ema)
    )
    return params, ema, state, weights


def same(one, other):
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(one), jax.device_get(other))


@pytest.mark.parametrize("parallel", [*sharding.MODES])
def test_parameters_and_average_are_those_of_the_other_run(old, parallel):
    params, ema, state, weights = begun(f"{old}:3", parallel=parallel, **CLASSES)
    same(params, dj.load(old, 3, raw=True).params)
    same(ema, dj.load(old, 3).params)
    assert int(state.step) == 0
    assert all((np.asarray(a) == 0).all() for a in jax.tree.leaves(state.opt_state))
    assert weights.name == f"{old}:3"
    assert weights.notes == ()


def test_what_does_not_fit_is_named_and_drawn_anew(old):
    params, ema, _, weights = begun(old, model__classes=0)
    assert weights.name == f"{old}:6"
    (note,) = weights.notes
    assert note == "1 array not used (condition/label/embedding)"
    before = dj.load(old).params
    del before["condition"]["label"]
    same(ema, before)
    with pytest.raises(AssertionError):  # raw parameters are not the average
        same(params, before)


def test_a_larger_network_takes_what_fits(old):
    config = settings(model__multipliers="1,2", model__attention_resolutions="4,")
    diffusion = open_data(config, None, print)[1]
    weights = initial.weights(str(old), config, diffusion, print)
    assert any("at random" in note and "not used" in note for note in weights.notes)
    assert 0 < len(weights.params) < len(jax.tree.leaves(diffusion.shapes))


def test_the_command_begins_resumes_and_refuses(old, tmp_path):
    new = f"--workdir={tmp_path / 'new'}"
    command = script("train", new, *flags(optimizer__learning_rate=1e-3))
    done = run_inside([*command, f"--init={old}"])
    assert done.returncode == 0, done.stderr
    assert f"beginning with the weights of {old}:6" in done.stdout
    assert "1 array not used (condition/label/embedding)" in done.stdout
    assert json.loads((tmp_path / "new" / "config.json").read_text())["init"] == f"{old}:6"
    again = run_inside([*command, f"--init={old}"])
    assert (again.returncode, "nothing to do" in again.stdout) == (0, True)
    other = run_inside([*command, "--init=elsewhere"])
    assert other.returncode == 2
    assert f"holds a run that began with the weights of {old}:6" in other.stderr
    late = run_inside(script("train", f"--workdir={old}", *flags(**CLASSES), f"--init={tmp_path}"))
    assert "holds a run that began with random weights" in late.stderr


def test_a_run_that_ended_before_its_first_save_begins_with_them_again(old, tmp_path):
    command = script("train", f"--workdir={tmp_path / 'new'}", *flags(train__steps=3))
    assert run_inside([*command, f"--init={old}:3"]).returncode == 0
    shutil.rmtree(tmp_path / "new" / "checkpoints")
    done = run_inside(script("train", f"--workdir={tmp_path / 'new'}"))
    assert done.returncode == 0, done.stderr
    assert f"beginning with the weights of {old}:3" in done.stdout
    assert json.loads((tmp_path / "new" / "config.json").read_text())["init"] == f"{old}:3"


def test_a_changed_rate_names_the_way_out(old):
    changes = {**CLASSES, "optimizer__learning_rate": 0.5}
    done = run_inside(script("train", f"--workdir={old}", *flags(**changes)))
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "optimizer.learning_rate (0.002 -> 0.5)" in done.stderr
    assert f"--init={old}" in done.stderr


def test_python_begins_with_weights_too(old):
    changes = {"train__steps": 1, "optimizer__learning_rate": 1e-12, "optimizer__warmup_steps": 0}
    state, _ = next(dj.steps(settings(**changes), init=f"{old}:3"))
    before = dj.load(old, 3, raw=True).params
    del before["condition"]["label"]
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6),
        jax.device_get(state.params),
        before,
    )


def test_weights_alone_are_enough(old, tmp_path):
    copy = shutil.copytree(old, tmp_path / "copy")
    for state in copy.glob("checkpoints/*/state"):
        shutil.rmtree(state)
    params, ema, _, weights = begun(copy, **CLASSES)
    same(params, ema)
    same(ema, dj.load(old).params)
    assert "no optimiser state" in weights.notes[0]


@pytest.mark.parametrize("init", ["nowhere", "gs://bucket/run"])
def test_no_such_run(tmp_path, init):
    done = run_inside(script("train", f"--workdir={tmp_path / 'new'}", *flags(), f"--init={init}"))
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert not (tmp_path / "new" / "config.json").exists()
