"""The U-Net of `benchmarks.torch_unet` with random weights: its outputs and gradients.

PEERS_PYTHON torch_unet_peer.py folder, which holds CASE.json (settings) and CASE_given.npz.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.torch_unet import unet

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
    torch.nn.functional.mse_loss(output, target).backward()
    answers = {"output": output.detach().numpy()}
    for name, weight in model.named_parameters():
        answers[f"weights/{name}"] = weight.detach().numpy()
        answers[f"gradients/{name}"] = weight.grad.numpy()
    return answers


def main(folder: Path) -> None:
    """Write CASE_answers.npz for every CASE.json."""
    generator = torch.Generator().manual_seed(0)
    for file in sorted(folder.glob("*.json")):
        with np.load(folder / f"{file.stem}_given.npz") as given:
            answers = answer(json.loads(file.read_text()), given, generator)
        np.savez(folder / f"{file.stem}_answers.npz", **answers)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
