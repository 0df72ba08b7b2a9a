"""`evaluate.py`: from a run's folder to its bits per dimension on a split, term by term."""

import copy
import json
import math
from pathlib import Path
from typing import Any

import jax

from diffusion_jax import build
from diffusion_jax.command_line import (
    Parser,
    as_path,
    called_as,
    check_file,
    integer,
    named,
    positive,
    seed,
    split_overrides,
)
from diffusion_jax.commands.pictures import strips, write_pictures
from diffusion_jax.configuration import Config, deviations, override
from diffusion_jax.data.dataset import Source
from diffusion_jax.data.sources import base_split
from diffusion_jax.devices import sharding
from diffusion_jax.errors import UserError
from diffusion_jax.evaluation import likelihood, report
from diffusion_jax.evaluation.finished_batches import FinishedBatches, fingerprint
from diffusion_jax.files import replacing
from diffusion_jax.run import folder
from diffusion_jax.run.likelihood import IMAGES_AT_ONCE, Results, evaluate, measures
from diffusion_jax.run.load import load
from diffusion_jax.run.progress import ImageProgress, warn
from diffusion_jax.run.run import CHANGEABLE, Run

# The config keys that an evaluation may change.
MAY_DIFFER = (*CHANGEABLE, "sample.clip")
EXAMPLES = """\
examples:
  {0} --workdir=runs/digits
  {0} --workdir=runs/digits --every=8 --num=100
  {0} --workdir=runs/digits --split=train --raw --checkpoint=2000
  {0} --workdir=runs/digits --trajectory --ode=100 --out=report.json
  {0} --workdir=runs/digits --config.variance=fixed_small
"""


def main(arguments: list[str]) -> None:
    """Evaluate every term of the bound on a split and write the report and its pictures."""
    given, overrides = _parse(arguments)
    run = load(given.workdir, given.checkpoint, raw=given.raw, plugins=given.plugins, progress=True)
    run = run.with_config(_changed(run.config, overrides))
    if given.every >= max(run.schedule.steps, 2):
        raise UserError(
            f"--every {given.every}: must be below the run's {run.schedule.steps} steps"
        )
    source = build.source(run.config, given.split)
    moved = any(key == "data.dir" for key, _ in overrides)
    shared = "" if moved else _trained_on(run.config, given.split, source)
    for note in filter(None, [*source.notes, shared]):
        warn(note)
    num = _check_data(source, run, given)
    out = given.out or given.workdir / "evaluation" / _name(given, run.step)
    if out.suffix.lower() != ".json" or out.is_dir():
        raise UserError(f"--out {out}: expected a name ending in .json")
    check_file(out)
    settings = _settings(run, given, num, source.size)
    print(f"checkpoint {run.step} of {run.folder}: {num} images of {given.split}", flush=True)
    dataset = source.load()
    everything = {**settings, "config": deviations(run.config)}
    identity = fingerprint(everything, run.params, dataset.images, dataset.labels)
    done = FinishedBatches(out.with_suffix(f".{identity[:12]}.parts"))
    size = settings["batch_size"]
    wanted = measures(run, given.every, given.seed, given.trajectory, given.ode)
    results = evaluate(run, dataset, num, size, wanted, _display(num), done)
    result = _report(results, run, given, settings)
    _write(out, result)
    layout = sharding.shardings(jax.devices())
    first = next(iter(likelihood.batches(dataset, num, size, layout)))
    write_pictures(out, result, strips(run, given.seed, layout, *first))
    done.remove()
    print(_summary(given.split, result))
    print(f"wrote {out} and the pictures beside it")


def _display(num: int):
    return lambda name: ImageProgress(num, f"{name}: evaluated")


def _parse(arguments: list[str]):
    rest, overrides = split_overrides(arguments)
    command = called_as("evaluate")
    parser = Parser(
        prog=command,
        description="Bits per dimension of a trained run.",
        examples=EXAMPLES.format(command),
    )
    parser.add_argument("--workdir", type=as_path, required=True, help="the run's folder")
    parser.add_argument("--split", type=named, default="test", help="data split; default: test")
    parser.add_argument("--num", type=positive, help="only the first NUM images; default: all")
    parser.add_argument(
        "--every", type=positive, default=1, help="draw one t per EVERY steps; default: 1"
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
        "--ode",
        type=positive,
        metavar="STEPS",
        help="also compute the likelihood by the ODE, and its error from half as many extra steps",
    )
    parser.add_argument("--out", type=as_path, help="report x.json; pictures go beside it")
    parser.add_plugins("your own files that the run was trained with")
    parser.add_argument(
        "--config.KEY", metavar="VALUE", help=f"change one of {', '.join(MAY_DIFFER)}"
    )
    return parser.parse_args(rest), overrides


def _changed(config: Config, overrides: list[tuple[str, str]]) -> Config:
    config = copy.deepcopy(config)
    for key, text in overrides:
        if key not in MAY_DIFFER:
            raise UserError(
                f"--config.{key}: an evaluation may change only {', '.join(MAY_DIFFER)}"
            )
        override(config, key, text)
    return config


def _trained_on(config: Config, split: str, source: Source) -> str:
    """Return a warning if another split than that of training shares images with it."""
    name, trained = config.data.name, config.data.split
    if split == trained or base_split(name, split) != base_split(name, trained):
        return ""
    try:
        shared = {*source.names} & {*build.source(config).names}
    except UserError:  # the images trained on are gone
        return ""
    if not shared:
        return ""
    return f"the run was trained on {len(shared):,} of the images of split '{split}'"


def _check_data(source: Source, run: Run, given) -> int:
    """Return how many images to evaluate; refuse data that do not fit the run's decoder."""
    for name in ("levels", "shape"):
        ours, theirs = getattr(run.data, name), getattr(source.spec, name)
        if ours != theirs:
            raise UserError(
                f"split '{given.split}' has {name} {theirs}, but the run's data had {ours}; "
                "set --config.data.dir to the data that the run was trained on"
            )
    classes = run.diffusion.classes
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


def _settings(run: Run, given, num: int, size: int) -> dict[str, Any]:
    """Return everything that the report's numbers depend on."""
    part = run.config
    return {
        "data": part.data.name,
        "split": given.split,
        "images": num,
        "images_in_split": size,
        "levels": run.data.levels,
        "checkpoint": run.step,
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
        "versions": folder.versions(),
    }


def _report(results: Results, run: Run, given, settings) -> dict[str, Any]:
    dims, steps = math.prod(run.data.shape), run.schedule.steps
    result = {
        "bits_per_dim": report.bound_terms(results["bound"], dims),
        "per_timestep": report.per_timestep(results["bound"], steps, given.every, dims),
    }
    if given.trajectory:
        nats = results["trajectory"]["nats"]
        result["trajectory"] = report.trajectory_check(results["bound"], nats, dims)
    if given.ode:
        nats, bound = results["ode"]["nats"], results["bound_dequantised"]
        half = results["ode_half"]["nats"] if "ode_half" in results else None
        result["ode"] = report.ode_summary(nats, half, bound, dims, given.ode)
    return {**result, "settings": settings}


def _write(out: Path, result: dict[str, Any]) -> None:
    with replacing(out) as file:
        file.write(json.dumps(result, indent=2, allow_nan=False) + "\n")


def _summary(split: str, result: dict[str, Any]) -> str:
    bits = {name: each["mean"] for name, each in result["bits_per_dim"].items()}
    error, count = result["bits_per_dim"]["total"]["stderr"], result["settings"]["images"]
    spread = "" if error is None else f" +- {error:.4f}"
    terms = ", ".join(f"{name} {value:.3g}" for name, value in bits.items() if name != "total")
    line = f"{split}: {bits['total']:.4f}{spread} bits/dim over {count} images ({terms})"
    return line if "ode" not in result else f"{line}\n{_ode_line(result['ode'])}"


def _ode_line(ode: dict[str, Any]) -> str:
    error = ode["discretisation_error"]
    about = "" if error is None else f", of which about {error:+.4f} is the error of so few steps"
    return f"ODE with --ode={ode['steps']}: {ode['mean']:.4f} bits/dim{about}"
