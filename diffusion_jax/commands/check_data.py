"""`check-data`: look at a user's data before training on it."""

import math
import shlex
from pathlib import Path

from diffusion_jax import build
from diffusion_jax.command_line import (
    Parser,
    as_path,
    called_as,
    check_file,
    split_overrides,
)
from diffusion_jax.commands.data_report import report
from diffusion_jax.configuration import Config, load
from diffusion_jax.configuration.as_json import flatten
from diffusion_jax.configuration.check import check
from diffusion_jax.configuration.plugins import load_plugins
from diffusion_jax.data.dataset import Look
from diffusion_jax.data.decoding import check_background
from diffusion_jax.data.inspection import Inspection, inspect_arrays, inspect_folder
from diffusion_jax.data.unreadable import BadImage
from diffusion_jax.errors import UserError, printable
from diffusion_jax.visual.images import grid, labelled_grid, save_png

ARRAYS = (".npz", ".npy")
# Shipped configs by what the sides of arrays must be divisible by, as these are never resized.
CONFIGS = {8: "image_folder", 4: "mnist", 2: "digits"}
ONE_LEVEL = {"model.multipliers": "1,"}  # a network that takes odd sides
EXAMPLES = """\
examples:
  {0} FOLDER
  {0} FOLDER --out=sheet.png
  {0} FOLDER --config.data.image_size=32 --config.data.channels=1
  {0} FOLDER --config=my_config.py
  {0} images.npz
"""


def main(arguments: list[str]) -> None:
    """Report what training would find in a folder or file, and draw a contact sheet."""
    given, overrides = _parse(arguments)
    load_plugins(given.plugins)
    place = given.data.expanduser()
    kind = _kind(place)
    _check_out(given.out, place)
    changes = {**dict(overrides), "data.name": kind, "data.dir": str(given.data)}
    if kind == "arrays":
        changes = {"data.image_size": "0", "data.channels": "0", **changes}
        found = inspect_arrays(place)
        fitting, more = _fitting(found)
        name = given.config or fitting
        changes = {**({} if given.config else more), **changes}
        config = _configured(name, changes)
    else:
        name = given.config or "image_folder"
        config = _configured(name, changes)
        found = inspect_folder(place, _look(config))
    for line in report(found, str(given.data), _look(config)):
        print(printable(line), flush=True)
    _draw(found, given.out)
    if problems := _problems(found, config):
        raise UserError("; ".join(problems))
    for line in _next(name, changes, given.plugins, len(found.classes)):
        print(line)


def _parse(arguments: list[str]):
    rest, overrides = split_overrides(arguments)
    command = called_as("check-data")
    parser = Parser(
        prog=command,
        description="Report what your data contains and what is wrong with it, without training.",
        examples=EXAMPLES.format(command),
    )
    parser.add_argument(
        "data",
        type=as_path,
        metavar="FOLDER_OR_FILE",
        help="a folder of images, a .npz or .npy file, or a folder with train.npz or train.npy",
    )
    parser.add_argument(
        "--out",
        type=as_path,
        default=Path("contact_sheet.png"),
        help="PNG file for a sheet of up to 100 of the images; default: contact_sheet.png",
    )
    parser.add_config(
        "config to train with; default: image_folder, or for arrays one that fits them"
    )
    parser.add_plugins("your own files that the config needs")
    return parser.parse_args(rest), overrides


def _kind(place: Path) -> str:
    """Return the `data.name` that reads this place."""
    if place.is_file() and place.suffix.lower() not in ARRAYS:
        raise UserError(
            f"'{place}' is not a .npz or .npy file; give such a file, or a folder of images"
        )
    if not place.exists():
        raise UserError(
            f"'{place}' does not exist; give a folder of images, or a .npz or .npy file"
        )
    splits = [place / f"{split}{suffix}" for split in ("train", "test") for suffix in ARRAYS]
    return "arrays" if place.is_file() or any(map(Path.is_file, splits)) else "image_folder"


def _check_out(out: Path, place: Path) -> None:
    if out.suffix.lower() != ".png" or out.is_dir():
        raise UserError(f"--out {out}: expected a name ending in .png")
    if out.resolve().is_relative_to(place.resolve()):
        raise UserError(
            f"the contact sheet {out} would lie in the data folder; give another place, such as "
            f"--out={Path('..') / out.name}"
        )
    check_file(out)


def _configured(name: str, changes: dict[str, str]) -> Config:
    config = load(name, changes.items())
    check(config)
    check_background(config.data.background)
    return config


def _look(config: Config) -> Look:
    data = config.data
    return Look(1 if data.channels == 1 else 3, data.image_size, data.background, data.exif)


def _fitting(found: Inspection) -> tuple[str, dict[str, str]]:
    """Return a shipped config, and changes to it, whose network takes arrays of these sizes."""
    divisor = math.gcd(*(side for item in found.items for side in item.size))
    fitting = [name for needed, name in CONFIGS.items() if divisor % needed == 0]
    return (fitting[0], {}) if fitting else ("digits", ONE_LEVEL)


def _draw(found: Inspection, out: Path) -> None:
    if found.sheet is None:
        print("contact sheet: none, as no image can be read")
        return
    split, images, labels = found.sheet
    save_png(out, labelled_grid(images, labels, found.classes) if found.classes else grid(images))
    total = sum(item.split == split and not item.fault for item in found.items)
    of = f" of split {split}" if split else ""
    print(f"contact sheet: {out}, {len(images)} of {total:,} images{of}")


def _problems(found: Inspection, config: Config) -> list[str]:
    """Return why training would fail, and what to do."""
    problems = [found.refused] if found.refused else []
    broken = sum(bool(item.fault) for item in found.items)
    if broken:
        problems.append(
            f"{broken:,} of {len(found.items):,} images cannot be read (see above); remove or "
            "replace them"
        )
    sizes = {item.size for item in found.items if not item.fault and item.split}
    if config.data.name == "image_folder" and not config.data.image_size and len(sizes) > 1:
        problems.append(
            f"the images have {len(sizes):,} different sizes; set --config.data.image_size"
        )
    if not found.refused:
        try:
            build.source(config)
        except BadImage:
            pass  # counted above
        except UserError as error:
            problems.append(str(error))
    return problems


def _next(name: str, changes: dict[str, str], plugins: list[Path], classes: int) -> list[str]:
    """Return the command that trains on the data."""
    own = flatten(load(name).to_dict())
    changed = [(key, text) for key, text in changes.items() if str(own.get(key)) != text]
    words = [f"--config={name}"]
    words += [f"--plugins={','.join(map(str, plugins))}"] if plugins else []
    words += [f"--config.{key}={text}" for key, text in changed]
    lines = [f"next: {called_as('train')} {shlex.join(words)}"]
    if classes:
        lines.append(f"      to train with the classes, add --config.model.classes={classes}")
    return lines
