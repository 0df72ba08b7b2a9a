"""`export-images`: write a data set's images as PNG files or one .npz, for FID tools."""

import math
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from typing import Any

import numpy as np

from diffusion_jax import build
from diffusion_jax.command_line import Parser, called_as, named, positive, split_overrides
from diffusion_jax.commands.outputs import Folder, Whole, open_output
from diffusion_jax.configuration import Config, load, to_json
from diffusion_jax.configuration.check import check
from diffusion_jax.configuration.plugins import load_plugins
from diffusion_jax.data.dataset import Source
from diffusion_jax.data.decoding import PIL_MODES, check_memory, limited_pixels
from diffusion_jax.data.transforms import to_unit_range
from diffusion_jax.data.unreadable import BadImage, all_bad, bad_images
from diffusion_jax.errors import UserError, counted
from diffusion_jax.paths import as_path
from diffusion_jax.run.progress import ImageProgress, warn
from diffusion_jax.visual.images import to_uint8

BATCH, PIECE = 64, 8  # images in memory at once, images that one thread reads
IMMATERIAL = (
    "flip",
    "stream",
    "workers",
    "balance",
    "changed",
)  # keys of config.data that do not affect stored images
EXAMPLES = """\
examples:
  {0} --config=digits --out=real/
  {0} --config=digits --split=test --out=real.npz
  {0} --config=cifar10 --num=10000 --out=real/
  {0} --config=image_folder --config.data.dir=FOLDER --out=real/
  {0} --config=image_folder --config.data.dir=FOLDER --config.data.image_size=32 --out=real.npz
"""


def main(arguments: list[str]) -> None:
    """Write the images of a split as training sees them, unflipped, with values 0 to 255."""
    given, overrides = _parse(arguments)
    load_plugins(given.plugins)
    config = load(given.config, overrides)
    check(config)
    split = given.split or config.data.split
    source = build.source(config, split)
    for note in source.notes:
        warn(note)
    if given.num and given.num > source.size:
        raise UserError(f"--num {given.num}: split '{split}' has only {source.size} images")
    num = given.num or source.size
    out = _open(given.out, source, num, _identity(config, split, source))
    wanted = out.missing(num)
    if not wanted:
        print(f"{out.path} has all {num} images; nothing to do")
        return
    _export(source, wanted, out)
    height, width, channels = source.shape
    shape = f"{height}x{width}x{channels}"
    print(f"wrote {counted(num, 'image')} {shape} of split '{split}' to {out.path}")


def _parse(arguments: list[str]):
    rest, overrides = split_overrides(arguments)
    command = called_as("export-images")
    parser = Parser(
        prog=command,
        description="Write the images that a config trains on to files, cropped and resized.",
        examples=EXAMPLES.format(command),
    )
    parser.add_config("a shipped config by name, or a Python file", required=True)
    parser.add_argument("--split", type=named, help="data split; default: the one trained on")
    parser.add_argument("--num", type=positive, help="only the first NUM images; default: all")
    parser.add_argument(
        "--out",
        type=named,
        required=True,
        help="a folder of PNGs, or x.npz (uint8 NHWC in arr_0, classes in arr_1)",
    )
    parser.add_plugins("your own files that the config needs")
    return parser.parse_args(rest), overrides


def _open(text: str, source: Source, num: int, identity: dict[str, Any]) -> Whole | Folder:
    path = as_path(text)
    if path.suffix.lower() == ".png" and not (path.is_dir() or text.endswith("/")):
        raise UserError(f"--out {text}: expected a folder, or a name ending in .npz")
    out = open_output(text, identity)
    if isinstance(out, Whole):
        needed = 2 * num * math.prod(source.shape)  # the batches, and all images in one array
        check_memory(str(path), needed, "give a folder instead, --out=FOLDER/")
        return out
    if source.shape[-1] not in PIL_MODES:
        raise UserError(
            f"--out {text}: the images have {source.shape[-1]} channels, and PNG files have 1, 3 "
            "or 4; give a name ending in .npz"
        )
    if others := out.others(num):
        raise UserError(
            f"--out {text}: holds more pictures ({others[0]}) than the {num} images to write; use "
            "another folder"
        )
    return out


def _identity(config: Config, split: str, source: Source) -> dict[str, Any]:
    """Return what determines the images: equal identities mean equal images."""
    data = {k: v for k, v in to_json(config)["data"].items() if k not in IMMATERIAL}
    place = str(as_path(data["dir"]).resolve()) if data["dir"] else ""
    own = {"dir": place, "split": split, "images": source.fingerprint}
    return {**data, **own}


def _export(source: Source, wanted: list[int], out: Whole | Folder) -> None:
    # Levels are scaled to 0..255 as in the pictures of samples; 256 levels stay as they are.
    scaled = to_uint8(to_unit_range(np.arange(source.levels), source.levels))
    progress, done = ImageProgress(len(wanted), "exported"), 0
    try:
        for index, images, labels in _batches(source, wanted):
            out.add(index, scaled[images], labels if source.classes else None)
            done += len(index)
            progress(done)
    finally:
        progress.close()
    out.finish()


def _batches(
    source: Source, wanted: list[int]
) -> Iterator[tuple[Sequence[int], np.ndarray, np.ndarray]]:
    """Yield `(indices, images, labels)`, read in threads; one error lists all bad images."""
    with limited_pixels(), ThreadPoolExecutor(os.cpu_count()) as pool:
        for first in range(0, len(wanted), BATCH):
            index = wanted[first : first + BATCH]
            try:
                parts = list(pool.map(source.read, _pieces(index)))
            except BadImage:
                rest = _pieces(wanted[first:])
                found = pool.map(lambda p: bad_images(lambda i: source.read([i]), p), rest)
                raise all_bad([*chain(*found)], len(wanted)) from None
            images, labels = (np.concatenate(each) for each in zip(*parts, strict=True))
            yield index, images, labels


def _pieces(index: list[int]) -> list[list[int]]:
    return [index[first : first + PIECE] for first in range(0, len(index), PIECE)]
