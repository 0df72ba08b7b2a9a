"""`sample.py`: from a run's folder to images."""

import copy
from pathlib import Path
from typing import Any

import numpy as np

from diffusion_jax.build import Steering
from diffusion_jax.command_line import (
    Parser,
    as_path,
    called_as,
    check_file,
    fraction,
    integer,
    named,
    positive,
    seed,
    split_overrides,
)
from diffusion_jax.commands.outputs import open_output
from diffusion_jax.configuration import Config, override, to_json
from diffusion_jax.configuration.check import check_effect
from diffusion_jax.data.pictures import read_image, read_mask
from diffusion_jax.errors import UserError, counted
from diffusion_jax.evaluation.finished_batches import fingerprint
from diffusion_jax.models.packing import pack
from diffusion_jax.run.load import load
from diffusion_jax.run.progress import ImageProgress
from diffusion_jax.run.run import Run
from diffusion_jax.run.sampling import STRENGTH, class_number
from diffusion_jax.samplers.generate import Frames, Method
from diffusion_jax.samplers.grids import GRIDS
from diffusion_jax.samplers.sample import SAMPLERS
from diffusion_jax.visual.images import save_film, save_strips, to_uint8

WATCHED = 8  # images whose trajectories are shown
FLAGS = ("sampler", "grid", "steps", "eta", "guidance")  # each stands for config.sample.FLAG
IMMATERIAL = ("num", "batch_size")  # do not affect image content
EXAMPLES = """\
examples:
  {0} --workdir=runs/digits --out=digits.png
  {0} --workdir=runs/digits --num=16 --sampler=dpmpp_2m --grid=log_snr --steps=20
  {0} --workdir=runs/digits --num=50000 --out=folder/
  {0} --workdir=runs/digits --inpaint=x.png --mask=mask.png --out=filled.png
  {0} --workdir=runs/labels --class=7 --guidance=2 --trajectory=seven.gif
"""


def main(arguments: list[str]) -> None:
    """Draw images from the averaged parameters of a run's checkpoint and write them."""
    given, overrides = _parse(arguments)
    run = load(given.workdir, given.checkpoint, plugins=given.plugins, progress=True)
    run = run.with_config(_changed(run.config, given, overrides))
    if given.steps and given.steps > run.schedule.steps:
        raise UserError(f"--steps {given.steps}: the run has only {run.schedule.steps} steps")
    steering = _steering(given, run)
    draw = run.drawing(given.num, steering)
    default = given.workdir / "samples" / f"sample_step{run.step}_seed{given.seed}.png"
    identity = _identity(run, given, steering)
    out = open_output(given.out or str(default), identity, run.data.class_names)
    _check_picture("--strip", given.strip, (".png",), [out.path, given.trajectory])
    _check_picture("--trajectory", given.trajectory, (".png", ".gif"), [out.path, given.strip])
    watched = min(WATCHED, given.num) if given.strip or given.trajectory else 0
    wanted = sorted({*out.missing(given.num), *range(watched)})  # watched ones again, for frames
    if not wanted:
        print(f"{out.path} already has the first {counted(given.num, 'image')}; nothing to do")
        return
    replaced = not given.out and out.path.exists()
    print(_first_line(run, len(wanted), draw.method), flush=True)
    progress, frames = ImageProgress(len(wanted), "sampled"), []
    try:
        for batch in draw.generate(run.params, given.seed, wanted, progress, watched):
            frames.append(batch.frames)
            out.add(batch.index, to_uint8(batch.images), batch.label)
    finally:
        progress.close()
    out.finish()
    if watched:
        _write_frames(frames, given)
    shown = [path for path in (out.path, given.strip, given.trajectory) if path]
    note = " (replaced; --seed=1 gives other images)" if replaced and not given.seed else ""
    print(f"wrote {' and '.join(map(str, shown))}{note}")


def _parse(arguments: list[str]):
    rest, overrides = split_overrides(arguments)
    command = called_as("sample")
    parser = Parser(
        prog=command,
        description="Draw images from a trained run.",
        examples=EXAMPLES.format(command),
    )
    parser.add_argument("--workdir", type=as_path, required=True, help="the run's folder")
    parser.add_argument("--num", type=positive, default=64, help="number of images; default: 64")
    parser.add_argument(
        "--seed", type=seed, default=0, help="image i depends only on the seed and i; default: 0"
    )
    parser.add_argument(
        "--checkpoint", type=integer, metavar="STEP", help="checkpoint to use; default: the newest"
    )
    parser.add_argument(
        "--out", type=named, help="x.png (a grid), x.npz (uint8 NHWC, arr_0) or a folder of PNGs"
    )
    method = parser.add_argument_group("method", "defaults: those of the run's config")
    method.add_argument("--sampler", type=named, help=", ".join(SAMPLERS))
    method.add_argument("--grid", type=named, help=", ".join(GRIDS))
    method.add_argument(
        "--steps", type=positive, help="denoising steps; --from uses only part of them"
    )
    method.add_argument("--eta", type=named, help="for ddim: 0 adds no noise, 1 as in ancestral")
    steering = parser.add_argument_group("steering")
    steering.add_argument(
        "--class", type=named, dest="label", help="class of all images, by name or number"
    )
    steering.add_argument(
        "--guidance", type=named, help="guidance scale; 1 is off, below 0 avoids the class"
    )
    steering.add_argument("--inpaint", type=as_path, metavar="IMAGE", help="image to inpaint")
    steering.add_argument(
        "--mask", type=as_path, help="image whose transparent or else white area is repainted"
    )
    steering.add_argument(
        "--from", type=as_path, dest="source", metavar="IMAGE", help="image to noise and start from"
    )
    steering.add_argument(
        "--strength", type=fraction, help="noise added to --from, up to 1; default: 0.6"
    )
    pictures = parser.add_argument_group("pictures")
    pictures.add_argument("--trajectory", type=as_path, help="x.gif or x.png: x_t of 8 images")
    pictures.add_argument("--strip", type=as_path, help="x.png: predicted x0 of 8 images over time")
    parser.add_plugins("your own files that the run was trained with")
    parser.add_argument(
        "--config.sample.KEY", metavar="VALUE", help="change any other sampling setting"
    )
    return parser.parse_args(rest), overrides


def _changed(config: Config, given, overrides: list[tuple[str, str]]) -> Config:
    config = copy.deepcopy(config)
    for key, text in overrides:
        if not key.startswith("sample."):
            raise UserError(f"--config.{key}: sampling may change only config.sample.*")
        override(config, key, text)
    for flag in FLAGS:
        value = getattr(given, flag)
        if value is not None:
            override(config, f"sample.{flag}", str(value))
    flags = [f"sample.{flag}" for flag in FLAGS if getattr(given, flag) is not None]
    check_effect(config, [*flags, *(key for key, _ in overrides)])
    return config


def _steering(given, run: Run) -> Steering:
    shape, background = run.data.shape, run.config.data.background
    if (given.inpaint is None) != (given.mask is None):
        raise UserError("--inpaint and --mask belong together: give both")
    if given.inpaint and given.source:
        raise UserError("--inpaint and --from exclude each other: give one")
    if given.strength and not given.source:
        raise UserError("--strength is the noise added to --from: give both")
    mask = read_mask(given.mask, shape) if given.mask else None
    if mask:
        print(f"repainting the {mask.area} area of {given.mask}", flush=True)
    return Steering(
        label=class_number(given.label, run.diffusion),
        source=read_image(given.source, shape, background) if given.source else None,
        strength=given.strength or (STRENGTH if given.source else 1.0),
        known=read_image(given.inpaint, shape, background) if given.inpaint else None,
        seen=1.0 - mask.repainted if mask else None,
    )


def _identity(run: Run, given, steering: Steering) -> dict[str, Any]:
    """Return all that determines the images: equal identities mean equal images."""
    drawn = {k: v for k, v in to_json(run.config)["sample"].items() if k not in IMMATERIAL}
    arrays = [each for each in (steering.source, steering.known, steering.seen) if each is not None]
    return {
        **drawn,
        "run": run.config.name,
        "checkpoint": run.step,
        "parameters": fingerprint({}, pack(run.params, np.concatenate))[:16],
        "seed": given.seed,
        "class": steering.label,
        "strength": steering.strength,
        "images": fingerprint({"count": len(arrays)}, arrays)[:16] if arrays else None,
    }


def _check_picture(
    flag: str, path: Path | None, suffixes: tuple[str, ...], others: list[Path | None]
) -> None:
    if path is None:
        return
    taken = path.resolve() in [other.resolve() for other in others if other]
    if path.suffix.lower() not in suffixes or path.is_dir() or taken:
        names = " or ".join(suffixes)
        raise UserError(f"{flag} {path}: expected a name ending in {names}, used by no other flag")
    check_file(path)


def _first_line(run: Run, num: int, method: Method) -> str:
    rows, name = method.plan.rows, run.config.sample.sampler
    return (
        f"checkpoint {run.step} of {run.folder}: {counted(num, 'image')} by {name} in "
        f"{counted(method.steps, 'step')} ({counted(len(rows.index), 'network call')})"
    )


def _write_frames(batches: list[Frames], given) -> None:
    x, x0 = (np.concatenate(each, axis=1) for each in zip(*batches, strict=True))
    if given.strip:
        save_strips(given.strip, np.moveaxis(x0, 0, 1))
    if given.trajectory and given.trajectory.suffix.lower() == ".gif":
        save_film(given.trajectory, x)
    elif given.trajectory:
        save_strips(given.trajectory, np.moveaxis(x, 0, 1))
