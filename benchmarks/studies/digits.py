"""Train, sample and evaluate the default run over several seeds: bits/dim, seconds, memory.

python -m benchmarks.studies.digits [--seeds 3] [--out x.json]
python -m benchmarks.studies.digits --seeds 1 --validate [--config.key=value ...]

--validate compares settings without looking at the test split: it trains on four fifths of the
training split and evaluates on the last.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import records
from diffusion_jax.command_line import positive, run, split_overrides


def script(name: str, *flags: str) -> records.Finished:
    """Run a script of the project."""
    return records.run([sys.executable, f"{name}.py", *flags])


def one_run(folder: Path, overrides: list[str], split: str) -> dict[str, Any]:
    """Do what `make train` does and evaluate every term of the bound on a whole split."""
    workdir, out = f"--workdir={folder / 'run'}", folder / "report.json"
    trained = script("train", "--config=configs/digits.py", workdir, *overrides)
    sampled = script("sample", workdir, "--num=64")
    evaluated = script("evaluate", workdir, f"--split={split}", f"--out={out}")
    report = json.loads(out.read_text())
    terms = {name: each["mean"] for name, each in report["bits_per_dim"].items()}
    stderr = report["bits_per_dim"]["total"]["stderr"]
    return {
        "train_seconds": trained.seconds,
        "sample_seconds": sampled.seconds,
        "evaluate_seconds": evaluated.seconds,
        "peak_gib": max(trained.peak_gib, sampled.peak_gib),
        "images": report["settings"]["images"],
        "bits_per_dim": {**terms, "stderr": stderr},
    }


def main(arguments: list[str]) -> None:
    """Measure and report."""
    parser = records.parser("studies.digits", __doc__)
    parser.add_argument("--seeds", type=positive, default=3)
    parser.add_argument("--validate", action="store_true")
    rest, overrides = split_overrides(arguments)
    given = parser.parse_args(rest)
    split = "validation" if given.validate else "test"
    flags = [f"--config.{key}={value}" for key, value in overrides]
    flags += ["--config.data.split=fit"] * given.validate
    runs = []
    for seed in range(given.seeds):
        with tempfile.TemporaryDirectory() as folder:
            row = one_run(Path(folder), [*flags, f"--config.seed={seed}"], split)
        runs.append({"seed": seed, **row})
        print(runs[-1], flush=True)
    mean = float(np.mean([row["bits_per_dim"]["total"] for row in runs]))
    about = {"split": split, "overrides": flags}
    records.save(given.out, {**about, "bits_per_dim": mean, "runs": runs})
    seconds = max(row["train_seconds"] + row["sample_seconds"] for row in runs)
    print(f"digits: {mean:.4f} bits/dim, mean of {len(runs)} seeds, {seconds:.0f} s")


if __name__ == "__main__":
    run(main)
