"""Stage `train`: `cifar10_fast` for the time that is left, and what the model is worth then.

The commands are those that a person types, so each is a process of its own; they must find the
accelerator free, and this process computes on the CPU.
"""

import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

import diffusion_jax as dj
from benchmarks.accelerator.data import DIGITS, Data, as_arrays, open_data
from benchmarks.accelerator.networks import CONFIG, SMALL
from benchmarks.harness import records
from diffusion_jax.checkpoints import step_folders
from diffusion_jax.files import replacing

RESERVED, MOST_RESERVED = 0.4, 120.0  # of the time, for what follows the training; seconds
SLACK = 0.2  # of what is reserved: a training may be slower than its first steps
EVERY = 20  # steps of the bound that one t stands for
TESTED = 1000  # images
SMALL_BATCH, SMALL_TESTED = 32, 100


def items(options, results, stack) -> dict:
    """Train, then evaluate, sample, draw the curve and write the weights."""
    jax.config.update("jax_platforms", "cpu")
    workdir, out = Path(options.workdir), Path(options.out)
    data = open_data(options.data)
    tested = min(SMALL_TESTED if options.small else TESTED, len(data.test.images))
    return {
        "train": lambda: train(options, data, results.left()),
        "evaluate": partial(evaluate, workdir, tested),
        "sample": partial(sample, workdir, out / "train_samples.png"),
        "curve": partial(curve, workdir, out / "train_curve.png"),
        "weights": partial(weights, workdir, out / "train_ema_float16.npz"),
    }


def train(options, data: Data, seconds: float) -> dict[str, Any]:
    """Train, or go on; where the time ends first it is stopped, saved, and can go on later."""
    workdir = Path(options.workdir)
    reserved = min(RESERVED * seconds, MOST_RESERVED)
    left = (seconds - reserved) / 60.0
    minutes = begun_minutes(workdir) or options.train_minutes or left
    command = [
        *script("train", workdir),
        *flags(options, data),
        f"--config.train.minutes={minutes}",
    ]
    done = records.run(command, stop_after=60.0 * left + SLACK * reserved)
    saved = step_folders.complete(workdir / "checkpoints")
    if not saved:
        last = done.lines[-1][1] if done.lines else "train.py said nothing"
        raise RuntimeError(f"no step was finished in {left:.1f} minutes: {last}")
    settings, planned = begun(workdir)
    steps, lines = saved[-1], logged(workdir)
    return {
        "data": data.line,
        "training_images": len(data.train.images),
        "steps": steps,
        "planned_steps": planned,
        "finished": steps == planned,
        "images_seen": steps * settings["train"]["batch_size"],
        "images_per_second": float(np.median([line["images_per_second"] for line in lines])),
        "minutes_of_this_call": done.seconds / 60.0,
        "planned_minutes": minutes,
        "config": settings,
        "curve": [[line["step"], line["loss"]] for line in lines],
    }


def evaluate(workdir: Path, num: int) -> dict[str, Any]:
    """Bits/dim of the averaged parameters on the first test images."""
    report = workdir / "evaluation" / "accelerator.json"
    flags = [f"--num={num}", f"--every={EVERY}", f"--out={report}"]
    done = records.run([*script("evaluate", workdir), *flags])
    total = json.loads(report.read_text())["bits_per_dim"]["total"]
    return {
        "bits_per_dim": total["mean"],
        "standard_error": total["stderr"],
        "images": num,
        "every": EVERY,
        "seconds": done.seconds,
    }


def sample(workdir: Path, out: Path) -> dict[str, Any]:
    """Draw 64 images with 20 calls of DPM-Solver++."""
    method = ["--sampler=dpmpp_2m", "--grid=log_snr", "--steps=20"]
    done = records.run([*script("sample", workdir), "--num=64", *method, f"--out={out}"])
    return {"picture": out.name, "seconds": done.seconds}


def curve(workdir: Path, out: Path) -> dict[str, Any]:
    """Draw the loss against the images seen; the numbers themselves are in train.json."""
    try:
        from diffusion_jax.visual import curves
    except ModuleNotFoundError as error:
        return {"left_out": f"the package '{error.name}' is not installed"}
    settings, _ = begun(workdir)
    lines = [line for line in logged(workdir) if line["loss"] is not None]
    seen = [line["step"] * settings["train"]["batch_size"] for line in lines]
    curves.loss_curve(out, seen, [line["loss"] for line in lines])
    return {"picture": out.name}


def weights(workdir: Path, out: Path) -> dict[str, Any]:
    """Write the averaged parameters as float16, an array a name."""
    params = dj.load(workdir).params
    arrays = {
        jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf, np.float16)
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
    }
    with replacing(out, "wb") as file:
        np.savez(file, **arrays)  # pyright: ignore[reportArgumentType]
    return {"file": out.name, "arrays": len(arrays), "bytes": out.stat().st_size}


def script(name: str, workdir: Path) -> list[str]:
    """The beginning of a command line of one of the project's scripts."""
    return [sys.executable, f"{name}.py", f"--workdir={workdir.absolute()}"]


def flags(options, data: Data) -> list[str]:
    """Name the config, and the data as arrays beside the run."""
    if data.name == DIGITS:
        return ["--config=configs/digits.py"]
    workdir = Path(options.workdir).absolute()
    folder = as_arrays(data, workdir.with_name(f"{workdir.name}_data"))
    changes = {"data.name": "arrays", "data.dir": folder}
    if options.small:
        changes |= {**SMALL, "train.batch_size": SMALL_BATCH}
    path = CONFIG.relative_to(records.ROOT)
    return [f"--config={path}", *(f"--config.{key}={value}" for key, value in changes.items())]


def begun(workdir: Path) -> tuple[dict[str, Any], int]:
    """Read the run's configuration and the number of steps that its minutes gave it."""
    content = json.loads((workdir / "config.json").read_text())
    return content["config"], content.get("paced_steps", 0)


def begun_minutes(workdir: Path) -> float:
    """Read the minutes of a run that goes on; 0 for a new one."""
    if not step_folders.complete(workdir / "checkpoints"):
        return 0.0
    return begun(workdir)[0]["train"].get("minutes", 0.0)


def logged(workdir: Path) -> list[dict[str, Any]]:
    """Read the lines of metrics.jsonl."""
    return [json.loads(line) for line in (workdir / "metrics.jsonl").open()]
