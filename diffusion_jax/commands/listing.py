"""`train.py --list`: what there is to choose from, each with one line."""

import ast
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path

from diffusion_jax.configuration import shipped
from diffusion_jax.configuration.tables import TABLES
from diffusion_jax.data.sources import DATASETS

WIDTH = 22
TITLES = {
    "schedule.name": "noise schedules",
    "prediction": "predictions",
    "variance": "variances of the reverse step",
    "decoder": "decoders",
    "loss": "losses",
    "weight": "weights of the squared error",
    "timesteps": "ways to draw t",
    "model.name": "networks",
    "optimizer.decay": "learning-rate decays",
    "sample.sampler": "samplers",
    "sample.grid": "sampling grids",
}


def everything() -> str:
    """Return all configs, data sets and tables as text."""
    parts = [_section("configs (--config=NAME)", {k: _reached(p) for k, p in shipped().items()})]
    data = {
        **_firsts(DATASETS),
        "any image set of TFDS": "for example cifar10, mnist, svhn_cropped",
    }
    parts.append(_section("data sets (--config.data.name=NAME)", data))
    for key, table in TABLES.items():
        parts.append(_section(f"{TITLES[key]} (--config.{key}=NAME)", _firsts(table)))
    return "\n\n".join(parts)


def _section(title: str, lines: Mapping[str, str]) -> str:
    return "\n".join([f"{title}:", *(f"  {name:<{WIDTH}} {line}" for name, line in lines.items())])


def _firsts(table: Mapping[str, Callable]) -> dict[str, str]:
    """Return the first line of every docstring."""
    return {
        name: (inspect.getdoc(function) or "").partition("\n")[0].rstrip(".")
        for name, function in table.items()
    }


def _reached(path: Path) -> str:
    """Return what a config is for and what it reaches, from the docstring of its file."""
    tree = ast.parse(path.read_text())
    doc = ast.get_docstring(tree) or ""
    result = " ".join(doc.partition("\nResult:")[2].partition("\n\n")[0].split())
    lines = [doc.partition("\n")[0].rstrip("."), result.rstrip(".")]
    if variants := _variants(tree):
        lines.append(f"variants: {', '.join(f'{path.stem}:{name}' for name in variants)}")
    return f"\n{'':{WIDTH + 3}}".join(filter(None, lines))


def _variants(tree: ast.Module) -> list[str]:
    """Return the keys of the dict VARIANTS in a config's file."""
    for node in tree.body:
        names = [getattr(name, "id", "") for name in getattr(node, "targets", [])]
        table = getattr(node, "value", None)
        if names == ["VARIANTS"] and isinstance(table, ast.Dict):
            return [ast.literal_eval(key) for key in table.keys if key is not None]
    return []
