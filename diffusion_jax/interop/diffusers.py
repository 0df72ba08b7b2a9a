"""diffusers' UNet2DModel as our network: its configuration and its weights, without torch.

`make parity` compares outputs and gradients of both.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from diffusion_jax.errors import UserError
from diffusion_jax.interop.diffusers_config import completed, shapes, unet
from diffusion_jax.models.network import Params

__all__ = ["name_of", "params", "places", "unet"]

# Our module names and diffusers', first those outside of blocks.
WHOLE = {
    "conv_in": "conv_in",
    "condition.time_0": "time_embedding.linear_1",
    "condition.time_1": "time_embedding.linear_2",
    "condition.label": "class_embedding",
    "norm_out": "conv_norm_out",
    "conv_out": "conv_out",
}
KINDS = {"block": "resnets", "attention": "attentions", "resample": "{side}samplers"}
INSIDE = {
    "norm_0": "norm1",
    "conv_0": "conv1",
    "condition": "time_emb_proj",
    "norm_1": "norm2",
    "conv_1": "conv2",
    "shortcut": "conv_shortcut",
    "norm": "group_norm",
    "query": "to_q",
    "key": "to_k",
    "value": "to_v",
    "project": "to_out.0",
    "": "conv",
}
# Former names of attention weights, which diffusers still reads.
FORMER = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


@dataclass(frozen=True)
class Place:
    """A parameter's name and shape in diffusers' state dict, and how it is converted to ours."""

    name: str
    shape: tuple[int, ...]
    axes: tuple[int, ...]
    ours: tuple[int, ...]


def params(config: Mapping[str, Any], weights: Mapping[str, Any]) -> Params:
    """Convert a UNet2DModel's state dict to parameters of `unet(config)`, float32 NumPy arrays.

    Values are only rearranged, so gradients can be converted in the same way.

    Args:
      config: as for `unet`.
      weights: an array for each name, as in diffusion_pytorch_model.safetensors.

    Raises:
      UserError: weights are missing, left over or of another shape; it names each of them.
    """
    tree = places(config)
    weights = {_today(name, weights): np.asarray(array) for name, array in weights.items()}
    _check(weights, {place.name: place.shape for place in jax.tree.leaves(tree)})

    def moved(place: Place) -> np.ndarray:
        array = weights[place.name].astype(np.float32).transpose(place.axes)
        return np.ascontiguousarray(array).reshape(place.ours)

    return jax.tree.map(moved, tree)


def places(config: Mapping[str, Any]) -> Any:
    """Return a `Place` for each parameter of `unet(config)`, as a tree of the same structure."""
    levels = len(completed(config)["block_out_channels"])

    def place(path, leaf) -> Place:
        own = jax.tree_util.keystr(path, simple=True, separator=".")
        name, shape = name_of(own, levels), leaf.shape
        if not own.endswith("kernel"):
            return Place(name, shape, tuple(range(len(shape))), shape)
        *window, inputs, outputs = (1, 1, *shape) if "shortcut" in own else shape
        axes = (2, 3, 1, 0) if window else (1, 0)
        return Place(name, (outputs, inputs, *window), axes, shape)

    return jax.tree_util.tree_map_with_path(place, shapes(unet(config), config))


def name_of(path: str, levels: int) -> str:
    """Return diffusers' name of our parameter.

    'up_0_block_1.conv_0.bias' in a network of 4 levels is 'up_blocks.3.resnets.1.conv1.bias'. Our
    levels begin with downsampling, theirs end with it; on the way up, theirs count from the lowest
    resolution.
    """
    module, leaf = path.rsplit(".", 1)
    leaf = "bias" if leaf == "bias" else "weight"
    if module in WHOLE:
        return f"{WHOLE[module]}.{leaf}"
    kinds = "|".join(KINDS)
    found = re.fullmatch(rf"(down|middle|up)_?(\d*)_({kinds})_?(\d*)\.?(\w*)", module)
    assert found, path
    side, level, kind, i, layer = found.groups()
    if side == "middle":
        place = "mid_block"
    elif side == "down":
        place = f"down_blocks.{int(level) - (kind == 'resample')}"
    else:
        place = f"up_blocks.{levels - 1 - int(level)}"
    return f"{place}.{KINDS[kind].format(side=side)}.{i or 0}.{INSIDE[layer]}.{leaf}"


def _today(name: str, weights: Mapping[str, Any]) -> str:
    """Return a weight's current name in diffusers, unless that is present as well."""
    new = ".".join(FORMER.get(part, part) for part in name.split("."))
    return name if new in weights else new


def _check(weights: Mapping[str, np.ndarray], expected: Mapping[str, tuple[int, ...]]) -> None:
    faults = {
        "missing": [name for name in expected if name not in weights],
        "left over": [name for name in weights if name not in expected],
        "of another shape": [
            f"{name} {weights[name].shape} for {shape}"
            for name, shape in expected.items()
            if name in weights and weights[name].shape != shape
        ],
    }
    if any(faults.values()):
        each = (f"{fault}: {', '.join(names)}" for fault, names in faults.items() if names)
        raise UserError(f"the weights do not match this configuration; {'; '.join(each)}")
