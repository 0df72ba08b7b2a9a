"""What does reliability cost? Training with everything on against a bare loop; and a large save.

python -m benchmarks.speed.overhead [--config configs/digits.py] [--large configs/cifar10.py] [--out X]

1. 500 steps through the loop (bad updates skipped, metrics read and logged, one save half-way)
   against 500 bare updates in a plain Python loop, interleaved, the order alternating.
   The last save is not counted: nothing follows it that it could hold up.
2. How long a save of the large network blocks, when it is on disk with its manifest, how long
   verifying and restoring take.
"""

import argparse
import shutil
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import jax
import numpy as np
import optax

from benchmarks.harness import records
from diffusion_jax import build, config
from diffusion_jax.checkpoints import step_folders
from diffusion_jax.checkpoints.storage import Checkpoints
from diffusion_jax.commands import train
from diffusion_jax.commands.feed import batches
from diffusion_jax.commands.prepare import prepare
from diffusion_jax.core.keys import Stream, stream_key
from diffusion_jax.devices.compiler import compiler_options
from diffusion_jax.training import loop
from diffusion_jax.training.step import ema_decay_at


class Stopwatch:
    """A report that remembers when the last step was done."""

    def __init__(self):
        self.at = 0.0

    def line(self, text: str) -> None:
        """Nobody listens."""

    def advance(self, step: int, **values: float) -> None:
        """Look at the clock."""
        self.at = time.perf_counter()


class Compared:
    """One configuration, compiled both ways."""

    def __init__(self, settings):
        self._settings, source = settings, build.source(settings)
        self._diffusion = build.diffusion(settings, source.spec)
        training = build.training(settings, self._diffusion)
        dataset, self._draw, self._parallel, _ = prepare(settings, source, training, fresh=True)
        assert dataset is not None, "not for streamed data"
        self._batches = batches(settings, dataset)
        self._bare = self._compiled(*training.make_step.args[:3])

    def _compiled(self, loss, timesteps, optimizer):
        def bare(state, batch):
            gradient = jax.value_and_grad(loss, has_aux=True)
            (_, losses), grads = gradient(state.params, state.memory, state.step, batch)
            updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
            params = optax.apply_updates(state.params, updates)
            decay = ema_decay_at(state.step, self._settings.ema.decay)
            ema = optax.incremental_update(params, state.ema, 1.0 - decay)
            memory = timesteps.update(state.memory, losses.t, losses.each)
            return state._replace(
                step=state.step + 1, params=params, ema=ema, opt_state=opt_state, memory=memory
            )

        return jax.jit(bare, donate_argnums=0, compiler_options=compiler_options())

    def off(self, steps: int) -> float:
        """Seconds of bare updates."""
        batch, place = self._batches, self._parallel.place_batch
        state = self._parallel.place_state(self._draw())
        jax.block_until_ready(state)
        began = time.perf_counter()
        for step in range(steps):
            state = self._bare(state, place(batch(step)))
        jax.block_until_ready(state)
        return time.perf_counter() - began

    def on(self, steps: int) -> float:
        """Seconds of the same updates through the loop."""
        folder = Path(tempfile.mkdtemp())
        plan = train.plan(self._settings)._replace(
            steps=steps, save_every=steps // 2, sample_every=0
        )
        state, watch = self._draw(), Stopwatch()
        jax.block_until_ready(state)
        with ExitStack() as stack:
            about = build.about(self._settings, self._diffusion)
            checkpoints = Checkpoints(folder / "checkpoints", about, step_folders.Keep(3))
            stack.callback(checkpoints.close)
            hooks = train.make_hooks(
                self._settings,
                folder,
                self._diffusion,
                self._parallel,
                self._batches,
                checkpoints,
                0,
                stack,
            )
            began = time.perf_counter()
            loop.train(state, plan, hooks._replace(report=watch))
        shutil.rmtree(folder)
        return watch.at - began


def cost(settings, steps: int, pairs: int) -> dict:
    """Medians of interleaved pairs, after one of each that is not counted."""
    compared = Compared(settings)
    compared.off(2)
    compared.on(2)
    seconds = {"off": [], "on": []}
    for pair in range(pairs):
        for kind in ("off", "on") if pair % 2 else ("on", "off"):
            seconds[kind].append(getattr(compared, kind)(steps))
        print({kind: round(each[-1], 2) for kind, each in seconds.items()}, flush=True)
    ratios = np.array(seconds["on"]) / np.array(seconds["off"])
    return {"steps": steps, "seconds": seconds, "overhead": float(np.median(ratios)) - 1.0}


def saving(settings, repeats: int) -> dict:
    """Seconds of each part of a save of this configuration's state, and of what reads it."""
    source = build.source(settings)
    diffusion = build.diffusion(settings, source.spec)
    init = build.training(settings, diffusion).init
    state = init(stream_key(settings.seed, Stream.INIT))
    folder = Path(tempfile.mkdtemp())
    checkpoints = Checkpoints(folder, {}, step_folders.Keep(1))
    seconds = {"blocked": [], "on_disk": [], "verify": [], "restore": []}
    for step in range(1, repeats + 1):
        state = jax.block_until_ready(state._replace(step=state.step + 1))
        began = time.perf_counter()
        checkpoints.save(state)
        seconds["blocked"].append(time.perf_counter() - began)
        outcome = checkpoints.wait()
        assert outcome is not None
        assert outcome.error is None, outcome.error
        seconds["on_disk"].append(time.perf_counter() - began)
        began = time.perf_counter()
        assert step_folders.damage(folder, step) is None
        seconds["verify"].append(time.perf_counter() - began)
        began = time.perf_counter()
        jax.block_until_ready(checkpoints.restore(step, state))
        seconds["restore"].append(time.perf_counter() - began)
    shutil.rmtree(folder)
    size = sum(a.nbytes for a in jax.tree.leaves(state))
    return {"config": settings.name, "bytes": size, "seconds": seconds}


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", default="configs/digits.py")
    parser.add_argument("--large", default="configs/cifar10.py")
    parser.add_argument("--data_dir", default="")
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    large = saving(config.load(given.large, [("data.dir", given.data_dir)]), 5)
    small = cost(config.load(given.config, []), given.steps, given.pairs)
    records.save(given.out, {"config": given.config, **small, "large": large})
    blocked = np.median(large["seconds"]["blocked"])
    print(f"overhead {small['overhead']:+.2%} of a step; a save blocks {blocked:.2f} s")


if __name__ == "__main__":
    main()
