"""`evaluate.py`: from a run's folder to its bits per dimension on a split, term by term."""

import json
import math
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from diffusion_jax import build, run_folder
from diffusion_jax.commands.arguments import (
    Parser,
    as_path,
    check_file,
    integer,
    named,
    positive,
    seed,
    split_overrides,
)
from diffusion_jax.commands.pictures import strips, write_pictures
from diffusion_jax.commands.restore import restore_ema, restore_raw
from diffusion_jax.commands.terminal import ImageProgress
from diffusion_jax.config import deviations, override
from diffusion_jax.config.check import check
from diffusion_jax.core.process import VARIANCES
from diffusion_jax.core.schedules import uniform_log_snr
from diffusion_jax.data.dataset import Source
from diffusion_jax.devices import sharding
from diffusion_jax.devices.compiler import enable_cache
from diffusion_jax.devices.cores import each_core_a_device
from diffusion_jax.errors import Diverged, UserError
from diffusion_jax.evaluation import likelihood, report
from diffusion_jax.evaluation.finished_batches import (
    FinishedBatches,
    fingerprint,
    measure_in_batches,
)
from diffusion_jax.files import replacing

# The config keys that an evaluation may change.
MAY_DIFFER = ("data.dir", "variance", "decoder", "sample.clip")

IMAGES_AT_ONCE = 64  # the default of --batch_size


def main(arguments: list[str]) -> None:
    """Evaluate every term of the bound on a split and write the report and its pictures."""
    given, overrides = _parse(arguments)
    each_core_a_device()
    enable_cache()
    run = run_folder.read(given.workdir)
    _change(run.config, overrides)
    diffusion = build.diffusion(run.config, run.data)
    if given.every >= max(diffusion.schedule.steps, 2):
        raise UserError(
            f"--every {given.every}: must be below the run's {diffusion.schedule.steps} steps"
        )
    source = build.source(run.config, given.split)
    num = _check_data(source, run, given)
    layout = sharding.shardings(jax.devices())
    state = (restore_raw if given.raw else restore_ema)(run, diffusion, given.checkpoint, layout)
    out = given.out or run.folder / "evaluation" / _name(given, int(state.step))
    if out.suffix.lower() != ".json" or out.is_dir():
        raise UserError(f"--out {out}: expected a name ending in .json")
    check_file(out)
    settings = _settings(run, given, num, source.size, int(state.step))
    print(f"checkpoint {state.step} of {run.folder}: {num} images of {given.split}", flush=True)
    dataset = source.load()
    params = jax.device_put(state.ema, layout.replicated)
    everything = {**settings, "config": deviations(run.config)}
    identity = fingerprint(everything, state.ema, dataset.images, dataset.labels)
    done = FinishedBatches(out.with_suffix(f".{identity[:12]}.parts"))
    batches = partial(likelihood.batches, dataset, num, settings["batch_size"], layout)
    results = {
        measure.name: measure_in_batches(
            measure, params, batches(), done, ImageProgress(num, f"{measure.name}: evaluated")
        )
        for measure in _measures(run, diffusion, given)
    }
    _check_finite(results, done)
    result = _report(results, diffusion, given, settings)
    _write(out, result)
    rows = strips(diffusion, run.config.sample.clip, given.seed, params, *next(iter(batches())))
    write_pictures(out, result, rows)
    done.remove()
    print(_summary(given.split, result))
    print(f"wrote {out} and the pictures beside it")


def _parse(arguments: list[str]):
    rest, overrides = split_overrides(arguments)
    parser = Parser(prog="evaluate.py", description="Bits per dimension of a trained run.")
    parser.add_argument("--workdir", type=as_path, required=True, help="the run's folder")
    parser.add_argument("--split", type=named, default="test", help="data split; default: test")
    parser.add_argument("--num", type=positive, help="only the first NUM images; default: all")
    parser.add_argument(
        "--every", type=positive, default=1, help="draw one t from each EVERY steps; default: 1"
    )
    parser.add_argument("--seed", type=seed, default=0, help="seed of the noise; default: 0")
    parser.add_argument(
        "--checkpoint", type=integer, metavar="STEP", help="checkpoint to use; default: the newest"
    )
    parser.add_argument("--raw", action="store_true", help="use the parameters, not their average")
    parser.add_argument(
        "--batch_size", type=positive, help="default: config.sample.batch_size, or 64 if that is 0"
    )
    parser.add_argument(
        "--trajectory", action="store_true", help="also compute the bound from whole trajectories"
    )
    parser.add_argument(
        "--ode", type=positive, metavar="STEPS", help="also compute the likelihood by the ODE"
    )
    parser.add_argument("--out", type=as_path, help="report x.json; pictures go beside it")
    parser.epilog = f"--config.key=value changes one of: {', '.join(MAY_DIFFER)}"
    return parser.parse_args(rest), overrides


def _change(config, overrides: list[tuple[str, str]]) -> None:
    check(config)
    trained = config.variance
    for key, text in overrides:
        if key not in MAY_DIFFER:
            raise UserError(
                f"--config.{key}: an evaluation may change only {', '.join(MAY_DIFFER)}"
            )
        override(config, key, text)
    check(config)
    learned = VARIANCES[trained].learned or VARIANCES[config.variance].learned
    if learned and config.variance != trained:
        raise UserError("config.variance cannot change to or from a learned variance; leave it out")


def _check_data(source: Source, run: run_folder.Run, given) -> int:
    """Return how many images to evaluate; refuse data that do not fit the run's decoder."""
    for name in ("levels", "shape"):
        ours, theirs = getattr(run.data, name), getattr(source.spec, name)
        if ours != theirs:
            raise UserError(
                f"split '{given.split}' has {name} {theirs}, but the run's data had {ours}; "
                "set --config.data.dir to the data that the run was trained on"
            )
    classes = run.config.model.classes
    if classes and not 0 < source.classes <= classes:
        raise UserError(
            f"split '{given.split}' has {source.classes} classes, but the network has {classes}; "
            "use labelled data with the same classes"
        )
    if given.num and given.num > source.size:
        raise UserError(f"--num {given.num}: split '{given.split}' has only {source.size} images")
    return given.num or source.size


def _name(given, step: int) -> str:
    """Return the report's default name: split, step, and num, every, seed and raw if given."""
    words = [given.split, f"step{step}"]
    words += [f"num{given.num}"] if given.num else []
    words += [f"every{given.every}"] if given.every > 1 else []
    words += [f"seed{given.seed}"] if given.seed else []
    return "_".join([*words, *(["raw"] if given.raw else [])]) + ".json"


def _settings(run: run_folder.Run, given, num: int, size: int, step: int) -> dict[str, Any]:
    """Return everything that the report's numbers depend on."""
    part = run.config
    return {
        "data": part.data.name,
        "split": given.split,
        "images": num,
        "images_in_split": size,
        "levels": run.data.levels,
        "checkpoint": step,
        "ema": not given.raw,
        "seed": given.seed,
        "steps": part.schedule.steps,
        "every": given.every,
        "t": "0-based; with every > 1 one t is drawn per image from each run of that many",
        "noise_draws_per_term": 1,
        "clip": part.sample.clip,
        "variance": part.variance,
        "decoder": part.decoder,
        "cdf": "exact normal CDF over each level's bin, open ends",
        "batch_size": given.batch_size or part.sample.batch_size or IMAGES_AT_ONCE,
        "ode_steps": given.ode,
        "trajectory": given.trajectory,
        "devices": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "versions": run_folder.versions(),
    }


def _measures(run: run_folder.Run, diffusion: build.Diffusion, given) -> list[likelihood.Measure]:
    def denoise(params, label, grid=None):
        return diffusion.denoise(params, label, run.config.sample.clip, grid)

    levels, reverse = run.data.levels, diffusion.reverse
    wanted = [likelihood.bound_measure(reverse, denoise, levels, given.every, given.seed)]
    if given.trajectory:
        wanted.append(likelihood.trajectory_measure(reverse, denoise, levels, given.seed))
    if given.ode:
        grid = uniform_log_snr(diffusion.schedule, given.ode + 1)
        wanted += [
            likelihood.bound_measure(
                reverse, denoise, levels, given.every, given.seed, dequantised=True
            ),
            likelihood.ode_measure(
                grid, lambda params, label: denoise(params, label, grid), levels, given.seed
            ),
        ]
    return wanted


def _check_finite(results: dict[str, dict[str, np.ndarray]], done: FinishedBatches) -> None:
    for name, arrays in results.items():
        for each in arrays.values():
            lost = np.argwhere(~np.isfinite(each))
            if lost.size:
                done.remove()
                remedy = "use more --ode steps" if name == "ode" else "try an earlier --checkpoint"
                raise Diverged(f"{name}: image {lost[0][-1]} has no finite value; {remedy}")


def _report(results, diffusion: build.Diffusion, given, settings) -> dict[str, Any]:
    dims, steps = math.prod(diffusion.data.shape), diffusion.schedule.steps
    result = {
        "bits_per_dim": report.bound_terms(results["bound"], dims),
        "per_timestep": report.per_timestep(results["bound"], steps, given.every, dims),
    }
    if given.trajectory:
        nats = results["trajectory"]["nats"]
        result["trajectory"] = report.trajectory_check(results["bound"], nats, dims)
    if given.ode:
        nats, bound = results["ode"]["nats"], results["bound_dequantised"]
        result["ode"] = report.ode_summary(nats, bound, dims, given.ode)
    return {**result, "settings": settings}


def _write(out: Path, result: dict[str, Any]) -> None:
    with replacing(out) as file:
        file.write(json.dumps(result, indent=2, allow_nan=False) + "\n")


def _summary(split: str, result: dict[str, Any]) -> str:
    bits = {name: each["mean"] for name, each in result["bits_per_dim"].items()}
    error, count = result["bits_per_dim"]["total"]["stderr"], result["settings"]["images"]
    spread = "" if error is None else f" +- {error:.4f}"
    terms = ", ".join(f"{name} {value:.3g}" for name, value in bits.items() if name != "total")
    return f"{split}: {bits['total']:.4f}{spread} bits/dim over {count} images ({terms})"
