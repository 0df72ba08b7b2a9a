"""`sample.py`: from a run's folder to images."""

from pathlib import Path

import jax
import numpy as np

from diffusion_jax import build, run_folder
from diffusion_jax.checks import check
from diffusion_jax.commands import cache
from diffusion_jax.commands.arguments import Parser, as_path, check_file, named, positive, seed
from diffusion_jax.commands.restore import restore_ema
from diffusion_jax.commands.terminal import Images
from diffusion_jax.errors import UserError
from diffusion_jax.training import devices
from diffusion_jax.visual.images import grid, save_png, save_strips, to_uint8

STRIP_ROWS = 8


def main(arguments: list[str]) -> None:
    """Draw images from the averaged parameters of a run's checkpoint and write them."""
    given = _parse(arguments)
    cache.enable()
    run = run_folder.read(given.workdir)
    check(run.config)
    parts = build.diffusion(run.config, run.data)
    steps = given.steps or build.sampling_steps(run.config, parts)
    layout = devices.shardings(jax.devices())
    batch_size = min(given.num, run.config.sample.batch_size)
    generate = build.generator(run.config, parts, layout, batch_size, steps)
    state = restore_ema(run, parts, given.checkpoint, layout)
    default = run.folder / "samples" / f"sample_step{state.step}_seed{given.seed}.png"
    write, out = _writer(given.out or str(default), given.num)
    if given.strip:
        _check_strip(given.strip, out)
    print(
        f"checkpoint {state.step} of {run.folder}: {given.num} images in {steps} steps", flush=True
    )
    progress = Images(given.num, "sampled")
    images = []
    try:
        for batch in generate(state, given.seed, given.num, progress):
            if given.strip and not images:
                save_strips(given.strip, np.moveaxis(batch.chain[:, :STRIP_ROWS], 0, 1))
            images.append(to_uint8(batch.images))
    finally:
        progress.close()
    write(out, np.concatenate(images))
    print(f"wrote {' and '.join(str(path) for path in (out, given.strip) if path)}")


def _parse(arguments: list[str]):
    parser = Parser(prog="sample.py", description="Draw images from a trained run.")
    parser.add_argument("--workdir", type=as_path, required=True, help="the run's folder")
    parser.add_argument("--num", type=positive, default=64, help="how many images")
    parser.add_argument("--seed", type=seed, default=0, help="image i is a function of seed and i")
    parser.add_argument("--steps", type=positive, help="sampling steps; default: the config's")
    parser.add_argument("--checkpoint", type=int, metavar="STEP", help="default: the newest")
    parser.add_argument(
        "--out", type=named, help="x.png (a grid), x.npz (uint8 NHWC, arr_0) or a folder of PNGs"
    )
    parser.add_argument(
        "--strip",
        type=as_path,
        help="also write a PNG of x0 predictions on the way",
    )
    return parser.parse_args(arguments)


def _writer(out: str, num: int):
    """How to write uint8 images to `out`: `(write, path)`, tried before anything is computed."""
    path = Path(out)
    suffix, folder = path.suffix.lower(), path.is_dir() or out.endswith("/")
    if suffix in (".png", ".npz") and not folder:
        check_file(path)
        return (_write_grid if suffix == ".png" else _write_npz), path
    if suffix in (".jpg", ".jpeg", ".gif", ".webp", ".bmp", ".npy") and not folder:
        raise UserError(f"--out {out}: expected a name ending in .png or .npz, or a folder")
    check_file(path / _name(0))
    others = {found.name for found in path.glob("*.png")} - {_name(i) for i in range(num)}
    if others:
        raise UserError(f"--out {out}: holds other pictures ({min(others)}); name an empty folder")
    return _write_folder, path


def _check_strip(strip: Path, out: Path) -> None:
    if strip.suffix.lower() != ".png" or strip.is_dir() or strip == out:
        raise UserError(f"--strip {strip}: expected a name ending in .png, another than --out")
    check_file(strip)


def _name(i: int) -> str:
    return f"{i:06d}.png"


def _write_grid(out: Path, images: np.ndarray) -> None:
    save_png(out, grid(images))


def _write_npz(out: Path, images: np.ndarray) -> None:
    part = out.with_name(out.name + ".part")
    with part.open("wb") as file:
        np.savez(file, arr_0=images)
    part.replace(out)


def _write_folder(out: Path, images: np.ndarray) -> None:
    for i, image in enumerate(images):
        save_png(out / _name(i), image)
