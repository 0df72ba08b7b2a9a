"""A configuration of diffusers' UNet2DModel as settings of our network.

Source: diffusers 0.42.1, models/unets/unet_2d.py and unet_2d_blocks.py.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax

from diffusion_jax.errors import UserError
from diffusion_jax.models import network
from diffusion_jax.models.layers import groups
from diffusion_jax.models.network import Params
from diffusion_jax.models.unet import UNet

# Every key without a leading underscore, and its default.
DEFAULTS = {
    "sample_size": None,
    "in_channels": 3,
    "out_channels": 3,
    "center_input_sample": False,
    "time_embedding_type": "positional",
    "time_embedding_dim": None,
    "freq_shift": 0,
    "flip_sin_to_cos": True,
    "down_block_types": ["DownBlock2D", *3 * ["AttnDownBlock2D"]],
    "mid_block_type": "UNetMidBlock2D",
    "up_block_types": [*3 * ["AttnUpBlock2D"], "UpBlock2D"],
    "block_out_channels": [224, 448, 672, 896],
    "layers_per_block": 2,
    "mid_block_scale_factor": 1,
    "downsample_padding": 1,
    "downsample_type": "conv",
    "upsample_type": "conv",
    "dropout": 0.0,
    "act_fn": "silu",
    "attention_head_dim": 8,
    "norm_num_groups": 32,
    "attn_norm_num_groups": None,
    "norm_eps": 1e-5,
    "resnet_time_scale_shift": "default",
    "add_attention": True,
    "class_embed_type": None,
    "num_class_embeds": None,
    "num_train_timesteps": None,
}

# The values that our network supports.
OURS = {
    "_class_name": ("UNet2DModel",),
    "center_input_sample": (False,),
    "time_embedding_type": ("positional",),
    "freq_shift": (1,),
    "flip_sin_to_cos": (False,),
    "mid_block_type": ("UNetMidBlock2D",),
    "mid_block_scale_factor": (1,),
    "downsample_type": ("conv", "resnet", None),
    "upsample_type": ("conv", "resnet", None),
    "act_fn": ("silu", "swish"),
    "norm_eps": (1e-6,),
    "resnet_time_scale_shift": ("default", "scale_shift"),
    "add_attention": (True,),
    "class_embed_type": (None,),
}

COUNTS = ("in_channels", "out_channels", "layers_per_block", "norm_num_groups")
OPTIONAL_COUNTS = ("attention_head_dim", "attn_norm_num_groups", "num_class_embeds")


class Block(NamedTuple):
    """Whether a level's blocks attend, and how they resample (None: as configured)."""

    attends: bool
    resample: str | None


class Resolution(NamedTuple):
    """The channels of a level, and its blocks on the way down and on the way up."""

    width: int
    down: Block
    up: Block


DOWN = {
    "DownBlock2D": Block(False, "conv"),
    "AttnDownBlock2D": Block(True, None),
    "ResnetDownsampleBlock2D": Block(False, "resnet"),
}
UP = {
    "UpBlock2D": Block(False, "conv"),
    "AttnUpBlock2D": Block(True, None),
    "ResnetUpsampleBlock2D": Block(False, "resnet"),
}


def unet(config: Mapping[str, Any]) -> UNet:
    """Return the network that computes the same as a UNet2DModel of this configuration.

    Attention resolutions are in pixels, so it is the same only for images of `sample_size`. The
    last of the `num_class_embeds` classes is our "no class".

    Args:
      config: a dict as in diffusers' config.json; keys left out have diffusers' defaults.

    Raises:
      UserError: the configuration has a setting that our network does not support.
    """
    config = completed(config)
    levels = _levels(config)
    first = levels[0].width
    model = UNet(
        config["out_channels"],
        channels=first,
        multipliers=tuple(level.width // first for level in levels),
        blocks=config["layers_per_block"],
        attention_resolutions=_resolutions(config, levels),
        heads=_heads(config, levels),
        dropout=config["dropout"],
        classes=(config["num_class_embeds"] or 1) - 1,
        scale_shift_norm=config["resnet_time_scale_shift"] == "scale_shift",
        resample_in_blocks=_resamples_in_blocks(config, levels),
    )
    _check_groups(config, shapes(model, config))
    return model


def shapes(model: UNet, config: Mapping[str, Any]) -> Params:
    """Return the shapes of the parameters of `unet(config)`."""
    config = completed(config)
    side = 2 ** (len(model.multipliers) - 1)
    image = (*(config["sample_size"] or (side, side)), config["in_channels"])
    return network.parameter_shapes(model, image)


def refusal(reason: str) -> UserError:
    """Return the error for a setting that our network does not support."""
    return UserError(f"diffusers' UNet2DModel cannot become our UNet: {reason}")


def completed(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the configuration with every key, and `sample_size` as a pair or None.

    Raises:
      UserError: a key is unknown, or its value is not supported by our network.
    """
    config = {"_class_name": "UNet2DModel", **DEFAULTS, **config}
    if unknown := [key for key in config if key not in DEFAULTS and not key.startswith("_")]:
        raise refusal(f"unknown keys {', '.join(unknown)}")
    if others := [key for key, values in OURS.items() if config[key] not in values]:
        each = (f"{key} is {config[key]!r}, must be {OURS[key][0]!r}" for key in others)
        raise refusal("; ".join(each))
    size = config["sample_size"]
    config["sample_size"] = (size, size) if isinstance(size, int) else size
    _check_counts(config)
    first, *others = config["block_out_channels"]
    if any(width % first for width in others):
        raise refusal(f"block_out_channels are {first} and {others}, not multiples of the first")
    if config["time_embedding_dim"] not in (None, 4 * first):
        raise refusal(f"time_embedding_dim is {config['time_embedding_dim']}, must be {4 * first}")
    if config["num_class_embeds"] == 1:
        raise refusal("num_class_embeds is 1, must be at least 2: a class and 'no class'")
    return config


def _check_counts(config) -> None:
    values = {key: [config[key]] for key in COUNTS}
    values |= {key: [config[key]] for key in OPTIONAL_COUNTS if config[key] is not None}
    values["block_out_channels"] = config["block_out_channels"]
    if config["sample_size"] is not None:
        values["sample_size"] = config["sample_size"]
    for key, counts in values.items():
        listed = isinstance(counts, list | tuple) and len(counts) > 0
        if not listed or not all(isinstance(n, int) and n > 0 for n in counts):
            raise refusal(f"{key} is {config[key]!r}; it takes integers above zero")
    if len(config["sample_size"] or (1, 1)) != 2:
        raise refusal(f"sample_size is {config['sample_size']}; it takes a height and a width")


def _levels(config) -> list[Resolution]:
    widths = config["block_out_channels"]
    for key, kinds in (("down_block_types", DOWN), ("up_block_types", UP)):
        if unknown := [name for name in config[key] if name not in kinds]:
            raise refusal(f"{key} has {unknown[0]!r}; known: {', '.join(kinds)}")
        if len(config[key]) != len(widths):
            raise refusal(f"{key} has {len(config[key])} levels, block_out_channels {len(widths)}")
    down = [DOWN[name] for name in config["down_block_types"]]
    up = [UP[name] for name in reversed(config["up_block_types"])]
    levels = [Resolution(*level) for level in zip(widths, down, up, strict=True)]
    for i, level in enumerate(levels):
        if level.down.attends != level.up.attends:
            raise refusal(f"level {i} has attention on one way only; it must be on both or none")
    return levels


def _resolutions(config, levels: list[Resolution]) -> tuple[int, ...]:
    attending = [i for i, level in enumerate(levels) if level.down.attends]
    if attending and config["sample_size"] is None:
        raise refusal("sample_size is missing; our attention needs it to find its resolutions")
    return tuple(max(config["sample_size"]) // 2**i for i in attending)


def _heads(config, levels: list[Resolution]) -> int:
    size = config["attention_head_dim"]
    if size is None:
        return 1
    attending = [level.width for level in levels if level.down.attends]
    widths = {*attending, levels[-1].width}  # the middle always does
    if len(widths) > 1 or any(width % size for width in widths):
        raise refusal(
            f"attention_head_dim is {size}, with attention at {sorted(widths)} channels; "
            "the number of heads must be the same everywhere"
        )
    return widths.pop() // size


def _resamples_in_blocks(config, levels: list[Resolution]) -> bool:
    down = {level.down.resample or config["downsample_type"] or "conv" for level in levels[:-1]}
    up = {level.up.resample or config["upsample_type"] or "conv" for level in levels[1:]}
    if len(down | up) > 1:
        raise refusal("some levels resample by 'conv', some by 'resnet'; all must be alike")
    if "conv" in down and config["downsample_padding"] != 0:
        raise refusal(f"downsample_padding is {config['downsample_padding']}, must be 0")
    return "resnet" in down


def _check_groups(config, parameters: Params) -> None:
    everywhere, middle = config["norm_num_groups"], config["attn_norm_num_groups"]
    for path, leaf in jax.tree_util.tree_leaves_with_path(parameters):
        is_scale = jax.tree_util.keystr(path[-1:], simple=True) == "scale"
        if is_scale and groups(leaf.size) != everywhere:
            own = groups(leaf.size)
            raise refusal(
                f"norm_num_groups is {everywhere}, must be {own} for {leaf.size} channels"
            )
    if middle is None and config["resnet_time_scale_shift"] == "default":
        middle = everywhere
    if middle != everywhere:
        raise refusal(f"attn_norm_num_groups is {middle}, must be {everywhere}")
