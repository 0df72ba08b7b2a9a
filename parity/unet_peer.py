"""diffusers' UNet2DModel with random weights: its outputs and gradients; imports nothing of ours.

PEERS_PYTHON unet_peer.py folder, which holds CASE.json (configurations) and CASE_given.npz.
"""

import numpy as np
import torch
from answers import answers, run
from diffusers import UNet2DModel

# What these layers give is normalised next: so small, the norms' epsilon counts.
QUIET = ("conv_in", "conv1", "conv2", "to_out.0")


def randomise(model: UNet2DModel, generator: torch.Generator) -> None:
    """Draw every weight, so that no zero and no one hides what it multiplies."""
    added = model.config.resnet_time_scale_shift == "default"  # the time, before a norm
    quiet = (*QUIET, "time_emb_proj") if added else QUIET
    for name, weight in model.named_parameters():
        layer, _, leaf = name.rpartition(".")
        mean, std = 0.0, 0.01
        if "norm" in layer:
            mean, std = float(leaf == "weight"), 0.2
        elif layer == "class_embedding":
            std = 1.0
        elif leaf == "weight":
            std = (len(weight) / weight.numel()) ** 0.5 * (0.01 if layer.endswith(quiet) else 1.0)
        weight.data = mean + std * torch.randn(weight.shape, generator=generator)


def answer(config: dict, given, generator: torch.Generator) -> dict[str, np.ndarray]:
    """The output for x at t, its mean squared distance from `target`, and the gradients of that."""
    model = UNet2DModel(**config).eval()
    randomise(model, generator)
    told = {name: torch.from_numpy(given[name]) for name in given.files}
    target = told.pop("target")
    output = model(told.pop("x"), told.pop("t"), return_dict=False, **told)[0]
    return answers(model, output, target)


if __name__ == "__main__":
    run(answer)
