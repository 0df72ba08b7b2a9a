"""`sample.py`: from a run's folder to images."""

from pathlib import Path

import jax
import numpy as np

from diffusion_jax import build, run_folder
from diffusion_jax.commands import cache
from diffusion_jax.commands.arguments import Parser, positive, seed
from diffusion_jax.commands.terminal import Sampling
from diffusion_jax.core.keys import Stream, stream_key
from diffusion_jax.errors import UserError
from diffusion_jax.training import devices
from diffusion_jax.training.checkpoint import Checkpoints
from diffusion_jax.visual.images import grid, save_png, to_uint8

STRIP_ROWS = 8


def main(arguments: list[str]) -> None:
    """Draw images from the averaged parameters of a run's checkpoint and write them."""
    given = _parse(arguments)
    cache.enable()
    run = run_folder.read(given.workdir)
    parts = build.diffusion(run.config, run.data)
    steps = given.steps or build.sampling_steps(run.config)
    layout = devices.shardings(jax.devices())
    batch_size = min(given.num, run.config.sample.batch_size)
    generate = build.generator(run.config, parts, layout, batch_size, steps)
    step, params = _parameters(run, parts, given.checkpoint, layout)
    out = given.out or run.folder / "samples" / f"sample_step{step}_seed{given.seed}.png"
    write = _writer(out)
    print(f"checkpoint {step} of {run.folder}: {given.num} images in {steps} steps", flush=True)
    progress = Sampling(given.num)
    images = []
    try:
        for batch in generate(params, given.seed, given.num, progress):
            if given.strip and not images:
                _write_strip(given.strip, batch.chain[:, :STRIP_ROWS])
            images.append(to_uint8(batch.images))
    finally:
        progress.close()
    write(np.concatenate(images))
    print(f"wrote {' and '.join(str(path) for path in (out, given.strip) if path)}")


def _parse(arguments: list[str]):
    parser = Parser(prog="sample.py", description="Draw images from a trained run.")
    parser.add_argument("--workdir", type=Path, required=True, help="the run's folder")
    parser.add_argument("--num", type=positive, default=64, help="how many images")
    parser.add_argument("--seed", type=seed, default=0, help="image i is a function of seed and i")
    parser.add_argument("--steps", type=positive, help="sampling steps; default: the config's")
    parser.add_argument("--checkpoint", type=int, metavar="STEP", help="default: the newest")
    parser.add_argument(
        "--out", type=Path, help="x.png (a grid), x.npz (uint8 NHWC, arr_0) or a folder of PNGs"
    )
    parser.add_argument("--strip", type=Path, help="also write a PNG of x0 predictions on the way")
    return parser.parse_args(arguments)


def _parameters(run: run_folder.Run, parts: build.Diffusion, step: int | None, layout):
    shapes = jax.eval_shape(parts.init, stream_key(run.config.seed, Stream.INIT))
    like = jax.tree.map(
        lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=layout.replicated), shapes
    )
    if not run.checkpoints.is_dir():
        raise UserError(f"no checkpoint in {run.folder}; train first")
    return Checkpoints(run.checkpoints).restore_ema(step, like)


def _writer(out: Path):
    """How to write uint8 images to `out`, checked before anything is computed."""
    if out.suffix not in (".png", ".npz", ""):
        raise UserError(f"--out {out}: expected a name ending in .png or .npz, or a folder")
    try:
        (out.parent if out.suffix else out).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {out}: cannot be written: {error.strerror}") from error
    writers = {".png": _write_grid, ".npz": _write_npz, "": _write_folder}
    return lambda images: writers[out.suffix](out, images)


def _write_grid(out: Path, images: np.ndarray) -> None:
    save_png(out, grid(images))


def _write_npz(out: Path, images: np.ndarray) -> None:
    part = out.with_name(out.name + ".part")
    with part.open("wb") as file:
        np.savez(file, arr_0=images)
    part.replace(out)


def _write_folder(out: Path, images: np.ndarray) -> None:
    for i, image in enumerate(images):
        save_png(out / f"{i:06d}.png", image)


def _write_strip(out: Path, chain: np.ndarray) -> None:
    """One row an image, its predicted clean image from left (noise) to right (done)."""
    rows = np.moveaxis(chain, 0, 1)
    count, columns = rows.shape[:2]
    images = to_uint8(rows.reshape(count * columns, *rows.shape[2:]))
    save_png(out, grid(images, columns))
