"""Parity with the U-Net of PyPI's diffusers, outputs and gradients: run `make parity`."""

import json
import re
import tempfile
from contextlib import contextmanager
from functools import cache, reduce
from operator import getitem
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.interop import diffusers
from diffusion_jax.models import network

OUTPUT, GRADIENT = 1e-4, 1e-3  # absolute; relative to the largest entry of a parameter's gradient

# What diffusers needs to be told to do as Ho et al. 2020.
PAPER = {
    "attention_head_dim": None,
    "downsample_padding": 0,
    "flip_sin_to_cos": False,
    "freq_shift": 1,
    "norm_eps": 1e-6,
}
CASES = {
    "cifar10": {
        "sample_size": 32,
        "block_out_channels": [128, 256, 256, 256],
        "down_block_types": ["DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"],
    },
    "one_level": {
        "sample_size": [4, 6],
        "in_channels": 1,
        "out_channels": 2,
        "block_out_channels": [128],
        "down_block_types": ["DownBlock2D"],
        "up_block_types": ["UpBlock2D"],
        "layers_per_block": 2,
    },
    "classes_and_heads": {
        "sample_size": 16,
        "block_out_channels": [68, 136, 136],
        "norm_num_groups": 17,
        "down_block_types": ["DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"],
        "up_block_types": ["AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"],
        "layers_per_block": 1,
        "attention_head_dim": 34,
        "num_class_embeds": 11,
        "dropout": 0.1,
    },
    "scaled_and_resampled_in_blocks": {
        "sample_size": [8, 16],
        "block_out_channels": [68, 68, 136],
        "norm_num_groups": 17,
        "attn_norm_num_groups": 17,
        "resnet_time_scale_shift": "scale_shift",
        "down_block_types": ["ResnetDownsampleBlock2D", "AttnDownBlock2D", "DownBlock2D"],
        "up_block_types": ["ResnetUpsampleBlock2D", "AttnUpBlock2D", "UpBlock2D"],
        "downsample_type": "resnet",
        "upsample_type": "resnet",
        "layers_per_block": 1,
    },
}


def exchanged(one: str, other: str):
    """A state dict where two parts of names have changed places."""
    swap = {one: other, other: one}

    def wrong(weights):
        parts = re.compile(f"({re.escape(one)}|{re.escape(other)})")
        return {parts.sub(lambda m: swap[m[0]], name): weight for name, weight in weights.items()}

    return wrong


def changed(name: str, change):
    """A state dict with one weight changed."""
    return lambda weights: {**weights, name: change(weights[name])}


WRONG = {
    "two_blocks": exchanged("mid_block.resnets.0", "mid_block.resnets.1"),
    "queries_and_keys": exchanged("to_q", "to_k"),
    "axes_of_a_window": changed("conv_in.weight", lambda weight: weight.swapaxes(2, 3)),
    "a_bias": changed("up_blocks.0.resnets.1.conv2.bias", lambda bias: bias + 2e-3),
}


def config(case: str) -> dict:
    """The case's configuration, as diffusers reads it."""
    return {**PAPER, **CASES[case]}


def inputs(case: str) -> dict[str, np.ndarray]:
    """Two images, their times and classes and what the output is compared with, as in torch."""
    rng, given = np.random.default_rng(1), config(case)
    size = np.broadcast_to(given["sample_size"], 2)
    drawn = {
        "x": rng.standard_normal((2, given.get("in_channels", 3), *size)),
        "target": rng.standard_normal((2, given.get("out_channels", 3), *size)),
        "t": np.array([17.5, 981.0]),
    }
    drawn = {name: array.astype(np.float32) for name, array in drawn.items()}
    if "num_class_embeds" in given:
        drawn["class_labels"] = np.array([3, given["num_class_embeds"] - 1])
    return drawn


class Answers(NamedTuple):
    """A network's output `[b, c, h, w]`, and its weights and gradients by diffusers' names."""

    output: np.ndarray
    weights: dict[str, np.ndarray]
    gradients: dict[str, np.ndarray]


def read(file: Path) -> Answers:
    parts = {"output": {}, "weights": {}, "gradients": {}}
    with np.load(file) as arrays:
        for key in arrays.files:
            part, _, name = key.partition("/")
            parts[part][name] = arrays[key]
    return Answers(parts["output"][""], parts["weights"], parts["gradients"])


@pytest.fixture(scope="module")
def theirs(run_peer):
    """What diffusers answers to all cases, in one run of it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for case in CASES:
            (folder / f"{case}.json").write_text(json.dumps(config(case)))
            np.savez(folder / f"{case}_given.npz", **inputs(case))
        run_peer("unet_peer.py", folder)
        yield {case: read(folder / f"{case}_answers.npz") for case in CASES}


@cache
def compiled(case: str):
    """Our `(params) -> ((loss, output), gradients)`, in float32 throughout."""
    model, told = diffusers.unet(config(case)), inputs(case)

    def last(image):
        return jnp.moveaxis(image, 1, -1)

    def loss(params):
        label = told.get("class_labels")
        output = network.apply(model, params, last(told["x"]), told["t"], label)
        return jnp.mean(jnp.square(output - last(told["target"]))), output

    return jax.jit(jax.value_and_grad(loss, has_aux=True))


@contextmanager
def optimised(whole: bool):
    """Compile as in a person's run, or else in half the time."""
    jax.config.update("jax_disable_most_optimizations", not whole)
    yield
    jax.config.update("jax_disable_most_optimizations", True)


def deviations(case: str, weights: dict, theirs: Answers) -> tuple[float, float]:
    """The largest difference of the outputs, and of the gradients where it is relatively largest.

    A parameter's gradient is held against its largest entry; the one of a key's bias is zero but
    for rounding, because the softmax does not see it, and is held against that of the key's kernel.
    """
    with jax.default_matmul_precision("highest"), optimised(case == "cifar10"):
        (_, output), gradients = compiled(case)(diffusers.params(config(case), weights))
    expected = diffusers.params(config(case), theirs.gradients)

    def relative(path, ours, wanted):
        *module, leaf = (key.key for key in path)
        kernel = reduce(getitem, module, expected).get("kernel", wanted)
        scale = kernel if module[-1] == "key" and leaf == "bias" else wanted
        return np.max(np.abs(ours - wanted)) / np.max(np.abs(scale))

    errors = jax.tree_util.tree_map_with_path(relative, gradients, expected)
    apart = np.max(np.abs(np.moveaxis(output, -1, 1) - theirs.output))
    return float(apart), float(max(jax.tree.leaves(errors)))


@pytest.mark.parametrize("case", CASES)
def test_outputs_and_gradients_are_theirs(case, theirs, capsys):
    answers = theirs[case]
    output, gradient = deviations(case, answers.weights, answers)
    with capsys.disabled():
        print(f"\n{case}: outputs within {output:.1e}, gradients within {gradient:.1e}", end=" ")
    assert output < OUTPUT
    assert gradient < GRADIENT


def test_both_have_the_papers_number_of_parameters(theirs):
    weights = theirs["cifar10"].weights
    ours = diffusers.params(config("cifar10"), weights)
    assert network.parameter_count(weights) == network.parameter_count(ours) == 35_746_307


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_weight_is_seen(wrong, theirs):
    answers = theirs["one_level"]
    output, gradient = deviations("one_level", WRONG[wrong](answers.weights), answers)
    assert output > OUTPUT
    assert gradient > GRADIENT
