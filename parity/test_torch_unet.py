"""Parity of the benchmarks' U-Net in plain PyTorch with ours: run `make parity`."""

import json
import tempfile
from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict
from test_network import Answers, changed, exchanged, optimised, read

from benchmarks.harness import peer_client, programs, records
from diffusion_jax import configuration
from diffusion_jax.models import network

OUTPUT, GRADIENT = 1e-4, 1e-3  # relative to the largest entry of the output; of each gradient

# Our configs and their overrides. The digits' widths are 12 and 36: odd numbers of groups in norms.
CASES = {
    "cifar10": {},
    "mnist": {"model.channels": "32", "model.blocks": "1", "model.attention_resolutions": "7,14"},
    "digits": {"model.channels": "12", "model.multipliers": "1,3"},
}
WRONG = {
    "a_window_turned": changed("down_1_resample.weight", lambda weight: weight[..., ::-1].copy()),
    "queries_and_keys": exchanged("query", "key"),
    "a_bias": changed("up_0_block_0.conv_1.bias", lambda bias: bias + 2e-3),
}


@cache
def job(case: str) -> programs.Job:
    path = records.ROOT / "configs" / f"{case}.py"
    return programs.job(configuration.load(str(path), list(CASES[case].items())))


def inputs(case: str) -> dict[str, np.ndarray]:
    """Two images, their times, and what the output is compared with, as in torch."""
    height, width, channels = job(case).data.shape
    rng = np.random.default_rng(1)
    drawn = {name: rng.standard_normal((2, channels, height, width)) for name in ("x", "target")}
    drawn["t"] = np.array([17.5, 981.0])
    return {name: array.astype(np.float32) for name, array in drawn.items()}


def params(weights: dict[str, np.ndarray]):
    """Our parameters from torch's: the names are equal but for a weight's, the axes are moved."""
    tree = {}
    for name, array in weights.items():
        *module, leaf = name.split(".")
        if leaf == "weight":
            leaf = "kernel" if array.ndim > 1 else "scale"
            axes = {1: (0,), 2: (1, 0), 4: (2, 3, 1, 0)}[array.ndim]
            array = array.transpose(axes)
        if module[-1] == "shortcut" and leaf == "kernel":
            array = array[0, 0]  # a dense layer of ours, a 1x1 convolution there
        tree[(*module, leaf)] = array
    return unflatten_dict(tree)


@pytest.fixture(scope="module")
def theirs(run_peer):
    """What torch answers to all cases, in one run of it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for case in CASES:
            settings = peer_client.settings(job(case).settings, job(case).data)
            (folder / f"{case}.json").write_text(json.dumps(settings))
            np.savez(folder / f"{case}_given.npz", **inputs(case))
        run_peer("torch_unet_peer.py", folder)
        yield {case: read(folder / f"{case}_answers.npz") for case in CASES}


@cache
def compiled(case: str):
    """Our `(params) -> ((loss, output), gradients)`, in float32 throughout."""
    model, given = job(case).diffusion.model, inputs(case)
    x, target = (jnp.moveaxis(given[name], 1, -1) for name in ("x", "target"))

    def loss(params):
        output = network.apply(model, params, x, given["t"])
        return jnp.mean(jnp.square(output - target)), output

    return jax.jit(jax.value_and_grad(loss, has_aux=True))


def deviations(case: str, weights: dict, theirs: Answers) -> tuple[float, float]:
    """The largest relative differences of the outputs, and of any parameter's gradient.

    A gradient is held against its largest entry, the one of a key's bias against that of the key's
    kernel: the softmax does not see the bias, so its gradient is zero but for rounding.
    """
    with jax.default_matmul_precision("highest"), optimised(case == "cifar10"):
        (_, output), gradients = compiled(case)(params(weights))
    found, expected = flatten_dict(gradients), flatten_dict(params(theirs.gradients))
    assert found.keys() == expected.keys()

    def relative(ours, wanted, scale):
        return float(np.max(np.abs(ours - wanted)) / np.max(np.abs(scale)))

    def scale(path):
        return expected[(*path[:-1], "kernel") if path[-2:] == ("key", "bias") else path]

    wanted = np.moveaxis(theirs.output, 1, -1)
    errors = (relative(found[path], expected[path], scale(path)) for path in expected)
    return relative(output, wanted, wanted), max(errors)


@pytest.mark.parametrize("case", CASES)
def test_outputs_and_gradients_are_ours(case, theirs, capsys):
    answers = theirs[case]
    output, gradient = deviations(case, answers.weights, answers)
    with capsys.disabled():
        print(f"\n{case}: outputs within {output:.1e}, gradients within {gradient:.1e}", end=" ")
    assert output < OUTPUT
    assert gradient < GRADIENT


def test_both_have_the_papers_number_of_parameters(theirs):
    weights = theirs["cifar10"].weights
    assert network.parameter_count(weights) == job("cifar10").parameters == 35_746_307


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_weight_is_seen(wrong, theirs):
    answers = theirs["digits"]
    output, gradient = deviations("digits", WRONG[wrong](answers.weights), answers)
    assert output > OUTPUT
    assert gradient > GRADIENT
