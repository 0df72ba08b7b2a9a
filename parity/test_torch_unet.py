"""The benchmarks' U-Net in plain PyTorch is ours, outputs and gradients: run `make parity`."""

import json
import tempfile
from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict
from test_network import read

from benchmarks import ours, peer, record
from diffusion_jax import config
from diffusion_jax.models import network

OUTPUT, GRADIENT = 1e-4, 1e-3  # over the largest entry of an output, of all gradients

CASES = {
    "cifar10": {},
    "mnist": {"model.channels": "32", "model.blocks": "1", "model.attention_resolutions": "7,14"},
    "digits": {"model.channels": "12", "model.multipliers": "1,3"},
}


@cache
def job(case: str) -> ours.Job:
    path = record.ROOT / "configs" / f"{case}.py"
    return ours.job(config.load(str(path), list(CASES[case].items())))


def inputs(case: str) -> dict[str, np.ndarray]:
    """Two images, their times, and what the output is compared with, as in torch."""
    height, width, channels = job(case).data.shape
    rng = np.random.default_rng(1)
    drawn = {name: rng.standard_normal((2, channels, height, width)) for name in ("x", "target")}
    drawn["t"] = np.array([17.5, 981.0])
    return {name: array.astype(np.float32) for name, array in drawn.items()}


def ours_of(weights: dict[str, np.ndarray]):
    """Torch's arrays by our names and in our order of axes."""
    flat = {}
    for name, array in weights.items():
        *path, leaf = name.split(".")
        if leaf == "weight":
            leaf = "kernel" if array.ndim > 1 else "scale"
        if array.ndim == 4:
            array = array.transpose(2, 3, 1, 0)
        elif array.ndim == 2:
            array = array.T
        if path[-1] == "shortcut" and leaf == "kernel":
            array = array[0, 0]
        flat[(*path, leaf)] = array
    return unflatten_dict(flat)


@pytest.fixture(scope="module")
def theirs(run_peer):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for case in CASES:
            settings = peer.settings(job(case).settings, job(case).data)
            (folder / f"{case}.json").write_text(json.dumps(settings))
            np.savez(folder / f"{case}_given.npz", **inputs(case))
        run_peer("torch_unet_peer.py", folder)
        yield {case: read(folder / f"{case}_answers.npz") for case in CASES}


def deviations(case: str, weights, answers) -> tuple[float, float]:
    """How far output and gradients are from torch's."""
    given, model = inputs(case), job(case).diffusion.model

    @jax.jit
    def loss(params):
        x, target = (jnp.moveaxis(given[name], 1, -1) for name in ("x", "target"))
        output = network.apply(model, params, x, given["t"])
        return jnp.mean(jnp.square(output - target)), output

    with jax.default_matmul_precision("highest"):
        gradient = jax.value_and_grad(loss, has_aux=True)
        (_, output), gradients = gradient(ours_of(weights))
    wanted = np.moveaxis(answers.output, 1, -1)
    theirs, found = flatten_dict(ours_of(answers.gradients)), flatten_dict(gradients)
    assert theirs.keys() == found.keys()
    apart = max(float(np.abs(found[path] - theirs[path]).max()) for path in theirs)
    largest = max(float(np.abs(each).max()) for each in theirs.values())
    return float(np.abs(output - wanted).max() / np.abs(wanted).max()), apart / largest


@pytest.mark.parametrize("case", CASES)
def test_outputs_and_gradients_are_ours(case, theirs, capsys):
    answers = theirs[case]
    output, gradient = deviations(case, answers.weights, answers)
    with capsys.disabled():
        print(f"\n{case}: outputs within {output:.1e}, gradients within {gradient:.1e}", end=" ")
    assert output < OUTPUT
    assert gradient < GRADIENT
    shapes = network.shapes(job(case).diffusion.model, job(case).data.shape)
    assert network.parameter_count(ours_of(answers.weights)) == network.parameter_count(shapes)


def test_a_wrong_weight_is_seen(theirs):
    answers = theirs["digits"]
    turned = {
        name: array[..., ::-1].copy() if name == "down_1_resample.weight" else array
        for name, array in answers.weights.items()
    }
    output, gradient = deviations("digits", turned, answers)
    assert output > OUTPUT
    assert gradient > GRADIENT
