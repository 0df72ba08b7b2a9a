"""Time `train.py` from its start to its first training step, imports and data included.

python -m benchmarks.speed.startup [--data_dir FOLDER] [--out x.json]

Each config starts twice with one new compilation cache: the first start compiles, the second reads
the cache. CIFAR-10 runs at batch 16 and needs the prepared data set.
"""

import sys
import tempfile

from benchmarks.harness import records
from diffusion_jax.command_line import run


def first_step(config: str, flags: list[str], cache: str) -> float:
    """Return the seconds from the start of `train.py` to the line that reports step 1."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "train.py", f"--config=configs/{config}.py"]
        command += [f"--workdir={folder}/run", "--config.train.steps=2", *flags]
        finished = records.run(command, {"XDG_CACHE_HOME": cache, "JAX_COMPILATION_CACHE_DIR": ""})
    return next(seconds for seconds, line in finished.lines if line.startswith("step 1/"))


def main(arguments: list[str]) -> None:
    """Measure and report."""
    parser = records.parser("speed.startup", __doc__)
    parser.add_argument("--data_dir", default="", help="where TFDS keeps CIFAR-10")
    given = parser.parse_args(arguments)
    large = ["--config.train.batch_size=16", f"--config.data.dir={given.data_dir}"]
    result = {}
    for config, flags in {"digits": [], "cifar10": large}.items():
        with tempfile.TemporaryDirectory() as cache:
            cold, warm = (first_step(config, flags, cache) for _ in range(2))
        result[config] = {"first_start_seconds": cold, "second_start_seconds": warm}
        print(f"startup {config}: {cold:.1f} s, again {warm:.1f} s", flush=True)
    records.save(given.out, result)


if __name__ == "__main__":
    run(main)
