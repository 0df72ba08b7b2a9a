"""Laws of reading diffusers' networks: every weight has one place, and what has none is named."""

import re

import jax
import numpy as np
import pytest

from diffusion_jax.errors import UserError
from diffusion_jax.interop import diffusers
from diffusion_jax.models import network
from diffusion_jax.models.unet import UNet

# What diffusers needs to be told to do as Ho et al. 2020.
PAPER = {
    "attention_head_dim": None,
    "downsample_padding": 0,
    "flip_sin_to_cos": False,
    "freq_shift": 1,
    "norm_eps": 1e-6,
}
CIFAR10 = {
    **PAPER,
    "_class_name": "UNet2DModel",
    "_diffusers_version": "0.0.4",
    "sample_size": 32,
    "block_out_channels": [128, 256, 256, 256],
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"],
}
SMALL = {
    **PAPER,
    "sample_size": 8,
    "block_out_channels": [68, 136],
    "norm_num_groups": 17,
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
    "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
    "layers_per_block": 1,
    "num_class_embeds": 5,
}
BLOCKS = {
    "down_block_types": ["ResnetDownsampleBlock2D", "DownBlock2D"],
    "up_block_types": ["ResnetUpsampleBlock2D", "UpBlock2D"],
}


@pytest.fixture(scope="module")
def weights():
    """A state dict of SMALL, every number another one."""
    places = jax.tree.leaves(diffusers.places(SMALL))
    ends = np.cumsum([np.prod(place.shape) for place in places])
    return {
        place.name: np.arange(end - np.prod(place.shape), end).reshape(place.shape)
        for place, end in zip(places, ends, strict=True)
    }


@pytest.fixture(scope="module")
def params(weights):
    return diffusers.params(SMALL, weights)


def test_the_papers_configuration_is_our_default():
    assert diffusers.unet(CIFAR10) == UNet(3, dropout=0.0)


@pytest.mark.parametrize("changes", [{}, {"num_class_embeds": None}, BLOCKS])
def test_every_parameter_has_a_place_of_its_own(changes):
    config = {**SMALL, **changes}
    places, shapes = (
        diffusers.places(config),
        network.parameter_shapes(diffusers.unet(config), (8, 8, 3)),
    )
    assert jax.tree.map(lambda p: p.ours, places) == jax.tree.map(lambda a: a.shape, shapes)
    names = [place.name for place in jax.tree.leaves(places)]
    assert len(set(names)) == len(names)


def test_every_number_arrives_once(params):
    leaves = jax.tree.leaves(params)
    arrived = np.concatenate([leaf.ravel() for leaf in leaves])
    np.testing.assert_array_equal(np.sort(arrived), np.arange(len(arrived)))
    assert {leaf.dtype for leaf in leaves} == {np.dtype("float32")}


@pytest.mark.parametrize(
    ("module", "layer", "name", "axes"),
    [
        ("conv_in", "", "conv_in", (2, 3, 1, 0)),
        ("condition", "time_1", "time_embedding.linear_2", (1, 0)),
        ("down_1_resample", "", "down_blocks.0.downsamplers.0.conv", (2, 3, 1, 0)),
        ("down_1_block_0", "condition", "down_blocks.1.resnets.0.time_emb_proj", (1, 0)),
        ("middle_attention", "query", "mid_block.attentions.0.to_q", (1, 0)),
        ("middle_block_1", "conv_1", "mid_block.resnets.1.conv2", (2, 3, 1, 0)),
        ("up_1_attention_1", "project", "up_blocks.0.attentions.1.to_out.0", (1, 0)),
        ("up_1_resample", "", "up_blocks.0.upsamplers.0.conv", (2, 3, 1, 0)),
        ("up_0_block_1", "conv_0", "up_blocks.1.resnets.1.conv1", (2, 3, 1, 0)),
    ],
)
def test_kernels_stand_where_diffusers_has_them(weights, params, module, layer, name, axes):
    found = params[module][layer] if layer else params[module]
    np.testing.assert_array_equal(found["kernel"], weights[f"{name}.weight"].transpose(axes))
    np.testing.assert_array_equal(found["bias"], weights[f"{name}.bias"])


def test_the_last_class_is_no_class(weights, params):
    table = params["condition"]["label"]["embedding"]
    np.testing.assert_array_equal(table, weights["class_embedding.weight"])
    assert diffusers.unet(SMALL).classes == len(table) - 1


def test_former_names_of_attention_are_known(weights, params):
    former = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    pattern = re.compile("|".join(map(re.escape, former)))
    old = {pattern.sub(lambda m: former[m[0]], name): array for name, array in weights.items()}
    assert old.keys() != weights.keys()
    jax.tree.map(np.testing.assert_array_equal, diffusers.params(SMALL, old), params)


def test_weights_that_do_not_fit_are_all_named(weights):
    wrong = dict(weights)
    del wrong["conv_in.bias"], wrong["mid_block.attentions.0.to_k.weight"]
    wrong["extra"] = wrong["conv_norm_out.running_mean"] = np.zeros(3)
    wrong["conv_out.weight"] = weights["conv_out.weight"].transpose(1, 0, 2, 3)
    with pytest.raises(UserError) as error:
        diffusers.params(SMALL, wrong)
    assert str(error.value) == (
        "the weights do not match this configuration; "
        "missing: conv_in.bias, mid_block.attentions.0.to_k.weight; "
        "left over: extra, conv_norm_out.running_mean; "
        "of another shape: conv_out.weight (68, 3, 3, 3) for (3, 68, 3, 3)"
    )


# Refusals


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"flip_sin_to_cos": True, "freq_shift": 0}, "freq_shift is 0, must be 1; flip_sin_to_cos"),
        ({"norm_eps": 1e-5}, "norm_eps is 1e-05, must be 1e-06"),
        ({"norm_num_groups": 4}, "norm_num_groups is 4, must be 17 for (68|136|204|272) channels"),
        ({"attn_norm_num_groups": 4}, "attn_norm_num_groups is 4, must be 17"),
        ({"resnet_time_scale_shift": "scale_shift"}, "attn_norm_num_groups is None, must be 17"),
        ({"downsample_padding": 1}, "downsample_padding is 1, must be 0"),
        ({"center_input_sample": True}, "center_input_sample is True, must be False"),
        ({"mid_block_scale_factor": 2}, "mid_block_scale_factor is 2, must be 1"),
        ({"act_fn": "gelu"}, "act_fn is 'gelu', must be 'silu'"),
        ({"class_embed_type": "timestep"}, "class_embed_type is 'timestep', must be None"),
        ({"_class_name": "UNet2DConditionModel"}, "_class_name is 'UNet2DConditionModel'"),
        ({"mid_blocks": 1}, "unknown keys mid_blocks"),
        ({"num_class_embeds": 1}, "num_class_embeds is 1, must be at least 2"),
        ({"time_embedding_dim": 68}, "time_embedding_dim is 68, must be 272"),
        ({"block_out_channels": [68, 100]}, "block_out_channels are 68 and .100., not multiples"),
        ({"block_out_channels": 68}, "block_out_channels is 68; it takes integers above zero"),
        ({"layers_per_block": [1, 2]}, "layers_per_block is .1, 2.; it takes integers"),
        ({"sample_size": None}, "sample_size is missing"),
        ({"sample_size": [8]}, "sample_size is .8.; it takes a height and a width"),
        ({"sample_size": 7}, "image size 7x7 is not divisible by 2"),
        ({"down_block_types": ["DownBlock2D"]}, "down_block_types has 1 levels, block_out.* 2"),
        ({"up_block_types": ["SkipUpBlock2D"]}, "up_block_types has 'SkipUpBlock2D'; known: UpBl"),
        ({"up_block_types": 2 * ["UpBlock2D"]}, "level 1 has attention on one way only"),
        ({"attention_head_dim": 48}, "attention_head_dim is 48, with attention at .136. channels"),
        (
            {**BLOCKS, "up_block_types": 2 * ["UpBlock2D"]},
            "some levels resample by 'conv', some",
        ),
        ({"dropout": 1.0}, "dropout is 1.0"),
    ],
    ids=str,
)
def test_what_our_network_cannot_do_is_refused(changes, message):
    with pytest.raises(UserError, match=message) as error:
        diffusers.unet({**SMALL, **changes})
    assert "\n" not in str(error.value)


def test_one_number_of_heads_at_all_levels():
    levels = {
        "down_block_types": 2 * ["AttnDownBlock2D"],
        "up_block_types": 2 * ["AttnUpBlock2D"],
        "attention_head_dim": 34,
    }
    with pytest.raises(UserError, match=r"34, with attention at \[68, 136\] channels"):
        diffusers.unet({**SMALL, **levels})
    assert diffusers.unet({**SMALL, "attention_head_dim": 34}).heads == 4


def test_padding_does_not_count_where_no_convolution_halves():
    blocks = {**BLOCKS, "downsample_padding": 1}
    assert diffusers.unet({**SMALL, **blocks}).resample_in_blocks
