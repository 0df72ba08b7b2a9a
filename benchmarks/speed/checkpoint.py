"""Time saving, verifying and restoring a checkpoint of the training state.

python -m benchmarks.speed.checkpoint --config configs/cifar10.py [--rounds 5] [--out x.json]
    [--config.key=value ...]

`blocked` is how long a save holds up training, `on_disk` when the files, their hashes and the
manifest are there.
"""

import tempfile
from pathlib import Path

import jax
import numpy as np

from benchmarks.harness import comparison, programs, records, timing
from diffusion_jax.checkpoints import step_folders
from diffusion_jax.checkpoints.storage import Checkpoints
from diffusion_jax.command_line import run
from diffusion_jax.core.keys import Stream, stream_key


def one_save(folder: Path, checkpoints: Checkpoints, state) -> dict[str, float]:
    """Return the seconds of each phase for one state."""

    def written():
        outcome = checkpoints.wait()
        assert outcome is not None
        assert outcome.error is None, outcome.error

    def verify():
        assert step_folders.damage(folder, step) is None

    step = int(state.step)
    actions = {
        "blocked": lambda: checkpoints.save(state),
        "on_disk": written,
        "verify": verify,
        "restore": lambda: checkpoints.restore(step, state),
    }
    seconds = {name: timing.timed(action)["seconds"] for name, action in actions.items()}
    return {**seconds, "on_disk": seconds["blocked"] + seconds["on_disk"]}


def saves(job: programs.Job, repeats: int) -> list[dict[str, float]]:
    """Save one state after another and return the seconds of each."""
    state, rows = job.training.init(stream_key(job.settings.seed, Stream.INIT)), []
    with tempfile.TemporaryDirectory() as folder:
        checkpoints = Checkpoints(Path(folder), {}, step_folders.Keep(1))
        for _ in range(repeats):
            state = jax.block_until_ready(state._replace(step=state.step + 1))
            rows.append(one_save(Path(folder), checkpoints, state))
        checkpoints.close()
    return rows


def main(arguments: list[str]) -> None:
    """Measure and report."""
    given, job = comparison.parse(comparison.parser("checkpoint", __doc__, False), arguments)
    rows = saves(job, given.rounds)
    records.save(given.out, {"config": job.settings.name, "seconds": rows})
    medians = (f"{name} {np.median([row[name] for row in rows]):.2f} s" for name in rows[0])
    print(f"checkpoint {job.settings.name}: {', '.join(medians)}")


if __name__ == "__main__":
    run(main)
