"""The U-Net of `benchmarks.accelerator.torch_unet` with random weights: its outputs and gradients.

PEERS_PYTHON torch_unet_peer.py folder, which holds CASE.json (settings) and CASE_given.npz.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from answers import answers, run

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.accelerator.torch_unet import unet

# What these layers give is normalised next: so small, the norms' epsilon counts.
QUIET = ("conv_in", "conv_0", "conv_1", ".condition", "project")


def randomise(model: torch.nn.Module, generator: torch.Generator) -> None:
    """Draw every weight, so that no zero and no one hides what it multiplies."""
    for name, weight in model.named_parameters():
        layer, _, leaf = name.rpartition(".")
        mean, std = 0.0, 0.01
        if "norm" in layer:
            mean, std = float(leaf == "weight"), 0.2
        elif leaf == "weight":
            std = (len(weight) / weight.numel()) ** 0.5 * (0.01 if layer.endswith(QUIET) else 1.0)
        weight.data = mean + std * torch.randn(weight.shape, generator=generator)


def answer(settings: dict, given, generator: torch.Generator) -> dict[str, np.ndarray]:
    """The output for x at t, its mean squared distance from `target`, and the gradients of that."""
    model = unet(settings).eval()
    randomise(model, generator)
    x, t, target = (torch.from_numpy(given[name]) for name in ("x", "t", "target"))
    output = model(x, t)
    return answers(model, output, target)


if __name__ == "__main__":
    run(answer)
