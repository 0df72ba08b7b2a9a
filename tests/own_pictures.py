"""Folders of pictures, and commands of the tiny run on them."""

import sys

import numpy as np
from PIL import Image
from tiny import ROOT, flags

KINDS = {"cat": 8, "dog": 4, "10": 4}


def pictures(folder, kinds=KINDS, size=8, seed=0):
    """Write random colour pictures; `kinds` says how many there are of each kind."""
    rng = np.random.default_rng(seed)
    for kind, count in kinds.items():
        (folder / kind).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            pixels = rng.integers(0, 256, (size, size, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / kind / f"{i:02}.png")
    return folder


def own(folder, **changes):
    """Flags of the tiny run on a folder of pictures."""
    given = {"data__name": "image_folder", "data__dir": folder, "data__channels": 3}
    return flags(**{**given, "train__steps": 2, "train__log_every": 1, **changes})


def script(name, *arguments):
    """A command line of a script."""
    return [sys.executable, str(ROOT / f"{name}.py"), *map(str, arguments)]
