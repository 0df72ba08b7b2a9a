"""Does the real thing run? DDPM's CIFAR-10 network on CIFAR-10: train, resume, sample.

python -m benchmarks.studies.cifar10 [--data_dir FOLDER] [--out benchmarks/results/cifar10.json]

20 steps at batch 16 with one stop half-way, then 4 images in 50 steps.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

from benchmarks.harness import records

STEPS, BATCH = 20, 16


def train(folder: str, steps: int, data_dir: str) -> records.Finished:
    """Train, or go on, to `steps`."""
    flags = {
        "data.dir": data_dir,
        "train.batch_size": BATCH,
        "train.steps": steps,
        "train.log_every": 1,
        "train.sample_every": 0,
    }
    command = [sys.executable, "train.py", "--config=configs/cifar10.py", f"--workdir={folder}"]
    return records.run([*command, *(f"--config.{key}={value}" for key, value in flags.items())])


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data_dir", default="")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        runs = [train(folder, steps, given.data_dir) for steps in (STEPS // 2, STEPS)]
        sampling = [sys.executable, "sample.py", f"--workdir={folder}", "--num=4", "--steps=50"]
        sampled = records.run(sampling)
        lines = [json.loads(line) for line in (Path(folder) / "metrics.jsonl").open()]
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    assert any("resuming" in text for _, text in runs[1].lines)
    rates = sorted(line["images_per_second"] for line in lines)
    result = {
        "losses": [line["loss"] for line in lines],
        "seconds_per_step": BATCH / rates[len(rates) // 2],
        "train_seconds": [run.seconds for run in runs],
        "sample_seconds": sampled.seconds,
        "peak_gib": max(run.peak_gib for run in (*runs, sampled)),
    }
    records.save(given.out, result)
    first, last = result["losses"][0], result["losses"][-1]
    print(
        f"cifar10 b{BATCH}: loss {first:.3f} -> {last:.3f}, {result['seconds_per_step']:.2f} s/step"
    )


if __name__ == "__main__":
    main()
