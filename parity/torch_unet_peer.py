"""The U-Net of `benchmarks.torch_unet` with random weights: its output and gradients.

PEERS_PYTHON torch_unet_peer.py folder, which holds CASE.json and CASE_given.npz.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.torch_unet import UNet


def randomise(model: torch.nn.Module, generator: torch.Generator) -> None:
    """Draw every weight, so that no zero and no one hides what it multiplies."""
    for name, weight in model.named_parameters():
        drawn = torch.randn(weight.shape, generator=generator)
        if weight.ndim > 1:
            weight.data = drawn * (len(weight) / weight.numel()) ** 0.5
        else:
            weight.data = 0.2 * drawn + float("norm" in name and name.endswith("weight"))


def main(folder: Path) -> None:
    """Write CASE_answers.npz for every CASE.json."""
    generator = torch.Generator().manual_seed(0)
    for file in sorted(folder.glob("*.json")):
        model = UNet(json.loads(file.read_text())).eval()
        randomise(model, generator)
        with np.load(folder / f"{file.stem}_given.npz") as given:
            x, t, target = (torch.from_numpy(given[name]) for name in ("x", "t", "target"))
        output = model(x, t)
        torch.nn.functional.mse_loss(output, target).backward()
        answers = {"output": output.detach().numpy()}
        for name, weight in model.named_parameters():
            answers[f"weights/{name}"] = weight.detach().numpy()
            answers[f"gradients/{name}"] = weight.grad.numpy()
        np.savez(folder / f"{file.stem}_answers.npz", **answers)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
