"""What the peers' network scripts share: an output with its gradients, case by case in a folder."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch


def answers(model: torch.nn.Module, output: torch.Tensor, target) -> dict[str, np.ndarray]:
    """The output, the weights, and the gradients of the mean squared distance from `target`."""
    torch.nn.functional.mse_loss(output, target).backward()
    found = {"output": output.detach().numpy()}
    for name, weight in model.named_parameters():
        found[f"weights/{name}"] = weight.detach().numpy()
        found[f"gradients/{name}"] = weight.grad.numpy()
    return found


def run(answer: Callable) -> None:
    """Write CASE_answers.npz for every CASE.json in the folder that the command line names.

    Args:
        answer: `(content of CASE.json, arrays of CASE_given.npz, generator) -> arrays`.
    """
    torch.set_num_threads(1)
    folder, generator = Path(sys.argv[1]), torch.Generator().manual_seed(0)
    for file in sorted(folder.glob("*.json")):
        with np.load(folder / f"{file.stem}_given.npz") as given:
            found = answer(json.loads(file.read_text()), given, generator)
        np.savez(folder / f"{file.stem}_answers.npz", **found)
