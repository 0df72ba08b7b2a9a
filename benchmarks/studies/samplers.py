"""How near does each method come with how many network calls? On an exact toy, and on a run.

python -m benchmarks.studies.samplers [--workdir runs/digits] [--out benchmarks/results/samplers.json]

1. A 2-D mixture of Gaussians with its exact denoiser, in float64: the sliced Wasserstein-1 distance
   of samples to exact draws and, of methods without noise, the distance of the end points to those
   of 5000 steps from the same noises.
2. A run: the Frechet distance of its images to the training split. Seed by
   seed, all methods start from the same noises.

Grids are even in log-SNR. Tables are printed; plots are written beside `--out`.
"""

import argparse
import math
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.harness import records
from benchmarks.studies import curves
from benchmarks.studies.curves import Panel
from diffusion_jax import build, build_sampling, run_folder
from diffusion_jax.commands.restore import restore_ema
from diffusion_jax.core import schedules
from diffusion_jax.core.keys import Stream, image_keys, stream_key
from diffusion_jax.core.moves import descent
from diffusion_jax.data.transforms import to_levels
from diffusion_jax.devices import sharding
from diffusion_jax.evaluation import frechet
from diffusion_jax.samplers.base import Plan, Sampler
from diffusion_jax.samplers.generate import Method
from diffusion_jax.samplers.sample import SAMPLERS, sample, scan_rows, start
from diffusion_jax.truth import exact

SCHEDULE = schedules.log_snr_linear(1000, 17)
TOY = exact.mixture(
    [0.4, 0.6], [[-0.7, 0.2], [0.6, -0.3]], [0.2**2 * np.eye(2), [[0.09, 0.03], [0.03, 0.05]]]
)
SETTINGS = {
    "variance": "fixed_small",
    "eta": 0.0,
    "churn": 40.0,
    "langevin_steps": 1,
    "langevin_rate": 0.1,
}
KEPT = ("clip", "grid", "eta", "churn", "langevin_steps", "langevin_rate", "guidance")
REFERENCE, FOLLOWED = 5000, 1000  # steps, and how many end points are compared
ANGLES = np.pi * np.arange(64) / 64
COMPARED = ("dpmpp_2m", "dpmpp_3m")
LONG = (*COMPARED, "dpmpp_sde", "ddim", "ancestral")  # which --long calls are spent on


def steps_for(plan_of: Callable[[int], Plan], calls: int) -> int:
    """How many steps come nearest to so many calls, which grow evenly; the fewer of two as near."""
    first, second = (len(plan_of(steps).rows.index) for steps in (1, 2))
    return max(1, math.ceil(0.5 + (calls - first) / (second - first)))


def counted(name: str, asked: int, plan: Plan) -> dict:
    """What a row of a table starts with."""
    steps, calls = int(plan.rows.move[-1]) + 1, len(plan.rows.index)
    return {"method": name, "asked": asked, "steps": steps, "calls": calls}


def toy_plan(sampler: Sampler, steps: int) -> Plan:
    """A method's plan on the toy's grid of so many steps."""
    grid = schedules.uniform_log_snr(SCHEDULE, steps)
    return sampler.plan(grid, descent(grid))


def toy_samples(sampler: Sampler, steps: int, keys: jax.Array) -> np.ndarray:
    """End points `[n, 2]` under the exact denoiser."""
    grid = schedules.uniform_log_snr(SCHEDULE, steps)
    denoise_on = partial(exact.denoiser, data=TOY)
    return np.asarray(jax.jit(lambda keys: sample(sampler, denoise_on, keys, (2,), grid))(keys))


def projected(x) -> np.ndarray:
    """Points `[n, 2]` along every direction, sorted: a mean difference is a sliced distance."""
    return np.sort(np.asarray(x) @ np.stack([np.cos(ANGLES), np.sin(ANGLES)]), axis=0)


def toy(asked: list[int], count: int) -> dict:
    """Both errors of every method for every number of calls, and the error of exact draws."""
    target, *others = (projected(exact.sample(TOY, jax.random.key(i), count)) for i in range(11))
    floor = [float(np.abs(each - target).mean()) for each in others]
    keys = jax.random.split(jax.random.key(100), count)
    truth = toy_samples(SAMPLERS["dpmpp_3m"](), REFERENCE, keys[:FOLLOWED])
    rows = []
    for name, make in SAMPLERS.items():
        sampler = build.call(make, SETTINGS)
        for calls in asked:
            steps = steps_for(partial(toy_plan, sampler), calls)
            plan, x = toy_plan(sampler, steps), toy_samples(sampler, steps, keys)
            distance = float(np.abs(projected(x) - target).mean())
            rows.append({**counted(name, calls, plan), "sliced_wasserstein": distance})
            if not plan.rows.table.std.any():
                off = np.linalg.norm(x[:FOLLOWED] - truth, axis=1)
                rows[-1]["endpoint_error"] = float(off.mean())
        print(f"toy: {name}", flush=True)
    return {
        "samples": count,
        "settings": SETTINGS,
        "floor": {"mean": float(np.mean(floor)), "draws": floor},
        "rows": rows,
    }


def run_method(config, diffusion: build.Diffusion, name: str, calls: int) -> Method:
    """The run's own way of sampling, by this method with about so many calls."""

    def method(steps: int) -> Method:
        config.sample.sampler, config.sample.steps = name, steps
        return build_sampling.method(config, diffusion)

    return method(steps_for(lambda steps: method(steps).plan, calls))


def run_samples(method: Method, params, images: int, seeds: int) -> np.ndarray:
    """Images `[seeds, n, h, w, c]`: the first ones that `sample.py` draws with each seed."""
    index = jnp.arange(images)
    label = None if method.label is None else method.label(np.asarray(index))

    @jax.jit
    def draw(params, label, seed):
        keys = image_keys(stream_key(seed, Stream.SAMPLE), index)
        begun = start(method.sampler, method.begin(keys))
        denoise = method.denoise(params, label)
        return scan_rows(method.sampler, denoise, keys, begun, method.plan.rows).x

    return np.stack([np.asarray(draw(params, label, seed)) for seed in range(seeds)])


def over_seeds(values) -> tuple[float, float]:
    """Mean and standard error."""
    return float(np.mean(values)), float(np.std(values, ddof=1) / math.sqrt(len(values)))


def judged(judge: frechet.Judge, levels: np.ndarray) -> dict:
    """The distance of `[seeds, n, h, w, c]`, seed by seed, and that of all images as one set."""
    each = [judge.distance(one) for one in levels]
    mean, stderr = over_seeds(each)
    pooled = judge.distance(levels.reshape(-1, *levels.shape[2:]))
    return {"frechet": mean, "frechet_stderr": stderr, "of_seeds": each, "pooled": pooled}


def compare(rows: dict, images: dict, mine: tuple[str, int], other: tuple[str, int]) -> dict:
    """By how much one distance exceeds another, paired over seeds, and how the images differ."""
    excess, stderr = over_seeds(np.divide(rows[mine]["of_seeds"], rows[other]["of_seeds"]) - 1.0)
    rmse = np.sqrt(np.square(images[mine] - images[other]).mean((2, 3, 4)))
    return {
        "of": mine,
        "against": other,
        "excess": excess,
        "excess_stderr": stderr,
        "pooled_excess": rows[mine]["pooled"] / rows[other]["pooled"] - 1.0,
        "image_rmse": float(rmse.mean()),
    }


def quality(run: run_folder.Run, given: argparse.Namespace) -> dict:
    """The Frechet distance of every method for every number of calls."""
    config, began = run.config, time.perf_counter()
    config.sample.update({"grid": "log_snr", "eta": 0.0, "langevin_steps": 1})
    diffusion = build.diffusion(config, run.data)
    params = restore_ema(run, diffusion, None, sharding.shardings(jax.devices())).ema
    splits = {split: build.source(config, split).load() for split in ("train", "test")}
    judge = frechet.learn(**splits)
    wanted = [(name, calls) for name in given.methods for calls in given.calls]
    wanted += [(name, given.long) for name in LONG if name in given.methods]
    wanted += [("ancestral", given.longest)]
    rows, images = {}, {}
    for name, calls in wanted:
        method = run_method(config, diffusion, name, calls)
        images[name, calls] = x = run_samples(method, params, given.images, given.seeds)
        levels = np.asarray(to_levels(x, run.data.levels))
        row = {**counted(name, calls, method.plan), **judged(judge, levels)}
        rows[name, calls] = row
        line = f"{name}, {row['calls']} calls: {row['frechet']:.3f} +- {row['frechet_stderr']:.3f}"
        print(f"{time.perf_counter() - began:.0f} s: {line}", flush=True)
    pairs = [
        ((name, calls), other)
        for name in COMPARED
        if name in given.methods
        for other in ((name, given.long), ("ancestral", given.longest))
        for calls in given.calls
    ]
    return {
        "config": config.name,
        "settings": {"variance": config.variance} | {key: config.sample[key] for key in KEPT},
        "images_of_a_seed": given.images,
        "seeds": given.seeds,
        "classifier_accuracy": judge.accuracy,
        "floors": {
            split: judge.floor(dataset.images, given.images, given.seeds)
            for split, dataset in splits.items()
        },
        "comparisons": [compare(rows, images, *pair) for pair in pairs],
        "rows": list(rows.values()),
    }


def place(out: Path | None, name: str) -> Path | None:
    """Where the plot of this name goes."""
    return out and out.with_name(f"{out.stem}_{name}.png")


def summary(result: dict) -> str:
    """One line: the toy's best method with about 20 calls, and what solvers lose by so few."""

    def near(rows: list[dict], calls: Callable[[dict], int]) -> list[dict]:
        gap = min(abs(calls(row) - 20) for row in rows)
        return [row for row in rows if abs(calls(row) - 20) == gap]

    rows, floor = result["toy"]["rows"], result["toy"]["floor"]["mean"]
    rows = near(rows, lambda row: row["asked"])
    best = min(rows, key=lambda row: row["sliced_wasserstein"])
    distance = f"{best['sliced_wasserstein']:.4f} away (exact draws {floor:.4f})"
    said = [f"toy, {best['calls']} calls: {best['method']} is {distance}"]
    compared = result.get("run", {}).get("comparisons", [])
    for each in near(compared, lambda pair: pair["of"][1]) if compared else []:
        (name, calls), (other, many) = each["of"], each["against"]
        percent = f"{100 * each['excess']:+.1f} +- {100 * each['excess_stderr']:.1f}%"
        said.append(f"{name} with {calls} calls {percent} against {other} with {many}")
    return "; ".join(said)


def main() -> None:
    """Measure, print, save and draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workdir", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--toy_calls", type=int, nargs="+", default=[5 * 2**i for i in range(7)])
    parser.add_argument("--toy_samples", type=int, default=20_000)
    parser.add_argument("--methods", nargs="+", default=list(SAMPLERS), choices=SAMPLERS)
    parser.add_argument("--calls", type=int, nargs="+", default=[10, 20, 50])
    parser.add_argument("--long", type=int, default=200, help=f"calls of {', '.join(LONG)}")
    parser.add_argument("--longest", type=int, default=1000, help="calls of ancestral sampling")
    parser.add_argument("--images", type=int, default=256, help="of every seed")
    parser.add_argument("--seeds", type=int, default=6, help="at least 2")
    given = parser.parse_args()
    with jax.enable_x64(True):
        result = {"toy": toy(given.toy_calls, given.toy_samples)}
    rows, floor = result["toy"]["rows"], result["toy"]["floor"]["mean"]
    panels = [
        Panel("Distance to the end points of 5000 steps", rows, "endpoint_error"),
        Panel("Sliced Wasserstein-1 distance to the data", rows, "sliced_wasserstein", floor),
    ]
    curves.report(place(given.out, "toy"), panels)
    if given.workdir:
        run = result["run"] = quality(run_folder.read(given.workdir), given)
        floor = run["floors"]["test"]["mean"]
        panel = Panel("Frechet distance to the training images", run["rows"], "frechet", floor)
        curves.report(place(given.out, "run"), [panel])
    records.save(given.out, result)
    print(summary(result))


if __name__ == "__main__":
    main()
