"""How good and how fast is the default run? Seconds, memory and test bits/dim over several seeds.

python -m benchmarks.studies.digits [--seeds 3] [--out benchmarks/results/digits.json]
python -m benchmarks.studies.digits --seeds 1 --validate [--config.key=value ...]

The second form compares settings without looking at the test split: it trains on four fifths of
the training split and evaluates on the last.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.harness import records
from diffusion_jax.data.sources import load_dataset


def train_and_sample(folder: Path, seed: int, overrides: list[str]) -> dict:
    """What `make train` runs, timed."""
    trained = records.run(
        [
            sys.executable,
            "train.py",
            "--config=configs/digits.py",
            f"--workdir={folder}",
            f"--config.seed={seed}",
            *overrides,
        ]
    )
    sampled = records.run([sys.executable, "sample.py", f"--workdir={folder}", "--num=64"])
    return {
        "seed": seed,
        "train_seconds": trained.seconds,
        "sample_seconds": sampled.seconds,
        "peak_gib": max(trained.peak_gib, sampled.peak_gib),
    }


def evaluate(folder: Path, split: str) -> dict:
    """Bits/dim of the averaged parameters over a whole split, all terms of the bound."""
    out = folder / "report.json"
    script = [sys.executable, "evaluate.py", f"--workdir={folder}", f"--split={split}"]
    finished = records.run([*script, f"--out={out}"])
    report = json.loads(out.read_text())
    terms = {name: each["mean"] for name, each in report["bits_per_dim"].items()}
    return {
        **terms,
        "stderr": report["bits_per_dim"]["total"]["stderr"],
        "images": report["settings"]["images"],
        "seconds": finished.seconds,
    }


def histogram_bits() -> float:
    """Bits/dim of the test split under independent pixel histograms, one added to each count."""
    train, test = (load_dataset("digits", split) for split in ("train", "test"))
    levels = np.arange(train.levels)[:, None, None, None, None]
    counts = (train.images == levels).sum(1) + 1.0
    log_p = np.log2(counts / counts.sum(0))
    return float(-np.take_along_axis(log_p, test.images.astype(int), 0).mean())


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--validate", action="store_true")
    parser.add_argument("--out", type=Path)
    given, overrides = parser.parse_known_args()
    split = "validation" if given.validate else "test"
    if given.validate:
        overrides.append("--config.data.split=fit")
    runs = []
    for seed in range(given.seeds):
        with tempfile.TemporaryDirectory() as folder:
            row = train_and_sample(Path(folder) / "run", seed, overrides)
            row["bits_per_dim"] = evaluate(Path(folder) / "run", split)
        runs.append(row)
        print(row, flush=True)
    totals = [row["bits_per_dim"]["total"] for row in runs]
    records.save(
        given.out,
        {
            "histogram_bits_per_dim": histogram_bits(),
            "split": split,
            "overrides": overrides,
            "bits_per_dim": float(np.mean(totals)),
            "runs": runs,
        },
    )
    seconds = max(row["train_seconds"] + row["sample_seconds"] for row in runs)
    print(f"digits: {np.mean(totals):.4f} bits/dim, mean of {len(runs)} seeds, {seconds:.0f} s")


if __name__ == "__main__":
    main()
