"""Stage `tests`: is this device right? Each check is a number and how large it may be.

python -m benchmarks.accelerator.checks FILE    (writes the reference; run it on a CPU)

`tests/test_accelerator.py` holds the same checks. The reference is what a CPU computes in float32
with full products; networks, noise and data are drawn from seeds, so nothing has to be downloaded.
"""

import sys
import tempfile
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.harness import programs, records
from diffusion_jax import build, configuration
from diffusion_jax.checkpoints.step_folders import Keep
from diffusion_jax.checkpoints.storage import Checkpoints
from diffusion_jax.core.keys import Stream, image_keys, image_normal, stream_key
from diffusion_jax.evaluation import likelihood
from diffusion_jax.files import replacing
from diffusion_jax.models.packing import pack, unpack
from diffusion_jax.samplers.grids import make_grid
from diffusion_jax.samplers.sample import SAMPLERS, sample

REFERENCE = Path(__file__).with_name("reference.npz")
SMALL = {
    "model.channels": "16",
    "model.dropout": "0.1",
    "schedule.steps": "40",
    "train.batch_size": "16",
    "optimizer.warmup_steps": "2",
}
STEPS = 10  # of training
STRATUM = 10  # steps of the bound that one t stands for
SAMPLED = 10  # steps

# How far each array may be from the reference, over the reference's root mean square. A step's
# rounding is multiplied by those after it, so losses and samples may differ by more.
TOLERANCES = {"output": 1e-4, "losses": 1e-3, "terms": 1e-4, "samples": 1e-3}
BFLOAT16 = 3e-2


@cache
def job(dtype: str = "float32") -> programs.Job:
    """Build the digits' network, smaller, with attention, dropout and two resolutions."""
    path = records.ROOT / "configs" / "digits.py"
    settings = configuration.load(str(path), [*SMALL.items(), ("model.dtype", dtype)])
    return programs.job(settings)


@cache
def params():
    """Draw parameters none of which is zero: fresh ones have layers whose output is."""

    @jax.jit
    def draw():
        # Packed, as the parameters were in which the reference was computed.
        leaves, tree = jax.tree.flatten(pack(job().diffusion.init(jax.random.key(0))))
        added = (
            jax.random.uniform(jax.random.key(i), a.shape, a.dtype, -0.1, 0.1)
            for i, a in enumerate(leaves, 1)
        )
        return unpack(jax.tree.unflatten(tree, map(jnp.add, leaves, added)), job().diffusion.shapes)

    return draw()


def keys(stream: Stream) -> jax.Array:
    """Make one key an image."""
    return image_keys(stream_key(0, stream), jnp.arange(job().settings.train.batch_size))


def output(dtype: str = "float32") -> np.ndarray:
    """Call the network on noise at a time of its own for each image, with dropout."""
    diffusion = job(dtype).diffusion
    x = image_normal(keys(Stream.NOISE), job().data.shape)
    time = jnp.linspace(0.0, diffusion.schedule.steps - 1, len(x))
    call = jax.jit(partial(diffusion.network, label=None))
    return np.asarray(call(params(), x, time, dropout_keys=keys(Stream.DROPOUT)))


class Trained(NamedTuple):
    """What the first steps of a training did.

    half, whole: the state on the host after half of the steps and after all.
    kept: buffers of the state before the first step that were still there after it.
    grown: bytes that the steps after the first left behind, 0 where they are not counted.
    """

    losses: np.ndarray
    half: Any
    whole: Any
    kept: int
    grown: int


@cache
def training() -> Trained:
    """Take a few steps on all devices."""
    step, parallel, state = started(job().training.init(stream_key(0, Stream.INIT)))
    before, found = state, []
    for number in range(STEPS):
        if number == STEPS // 2:
            half = on_host(parallel, state)
        state, metrics = step(state)
        found.append(parallel.read(metrics.loss))
        if number == 0:
            kept = sum(not leaf.is_deleted() for leaf in jax.tree.leaves(before))
            in_use = memory_in_use()
    grown = memory_in_use() - in_use
    return Trained(np.asarray(found), half, on_host(parallel, state), kept, grown)


def started(state):
    """Compile the step for all devices; return it, its `Parallel`, and a state placed there."""
    batch, parallel = job().batch, programs.spread(job())
    parallel = parallel.compile(batch)
    placed = parallel.place_batch(batch)
    return lambda state: parallel.step(state, placed), parallel, parallel.place_state(state)


def losses() -> np.ndarray:
    """Return the losses of the first training steps."""
    return training().losses


def terms() -> np.ndarray:
    """Return every term of the bound of the batch's images, in nats `[strata + 1, b]`."""
    diffusion, images = job().diffusion, job().batch
    bound = likelihood.bound_measure(
        diffusion.reverse,
        lambda params, label: diffusion.denoise(params, None, True),
        job().data.levels,
        STRATUM,
        seed=0,
    )
    found = bound.run(params(), likelihood.ImageBatch(*images), lambda part: None)
    return np.concatenate([found["prior"][None], found["nats"]])


def samples() -> np.ndarray:
    """Draw images by ancestral sampling."""
    diffusion, settings = job().diffusion, job().settings
    sampler = SAMPLERS["ancestral"](variance=settings.variance)
    grid = make_grid("uniform", diffusion.schedule, SAMPLED)

    @jax.jit
    def draw(params, keys):
        on = partial(diffusion.denoise, params, None, True)
        return sample(sampler, on, keys, job().data.shape, grid)

    return np.asarray(draw(params(), keys(Stream.SAMPLE)))


COMPUTED: dict[str, Callable[[], np.ndarray]] = {
    "output": output,
    "losses": losses,
    "terms": terms,
    "samples": samples,
}


def compared(name: str) -> dict:
    """Compare one array with the reference."""
    with jax.default_matmul_precision("highest"):
        found = COMPUTED[name]()
    return judged(distance(found, reference()[name]), TOLERANCES[name])


def bfloat16() -> dict:
    """Compare the network in bfloat16 with the reference in float32, by root mean squares."""
    wanted = reference()["output"]
    spread = np.sqrt(np.square(wanted).mean())
    return judged(float(np.sqrt(np.square(output("bfloat16") - wanted).mean()) / spread), BFLOAT16)


def resumed() -> dict:
    """Count the arrays that differ between steps in one go and steps with a stop on disk between.

    The step is compiled again after the stop, as in a new process.
    """
    with jax.default_matmul_precision("highest"), tempfile.TemporaryDirectory() as folder:
        whole, about = training(), build.about(job().settings, job().diffusion)
        checkpoints = Checkpoints(Path(folder), about, Keep(1, 0, 0))
        checkpoints.save(whole.half)
        saved = checkpoints.wait()
        assert saved, "nothing was saved"
        assert saved.error is None, saved.error
        restored = checkpoints.restore(saved.step, programs.spread(job()).state)
        checkpoints.close()
        step, parallel, state = started(restored)
        for _ in range(saved.step, STEPS):
            state, _ = step(state)
    pairs = zip(*map(jax.tree.leaves, (whole.whole, on_host(parallel, state))), strict=True)
    return judged(sum(a.tobytes() != b.tobytes() for a, b in pairs), 0)


def donated() -> dict:
    """Count the buffers that a step should have used up; and the bytes that steps leave behind."""
    with jax.default_matmul_precision("highest"):
        found = training()
    return {**judged(found.kept, 0), "bytes_left_by_steps": found.grown}


CHECKS: dict[str, Callable[[], dict]] = {
    **{name: partial(compared, name) for name in COMPUTED},
    "bfloat16": bfloat16,
    "resumed": resumed,
    "donated": donated,
}


def items(options, results, stack) -> dict:
    """Each check by its name; one that does not hold is a failure."""
    return {name: partial(holding, check) for name, check in CHECKS.items()}


def holding(check: Callable[[], dict]) -> dict:
    """Return what a check found.

    Raises:
        AssertionError: it does not hold.
    """
    found = check()
    assert found["holds"], f"{found['value']:.3g} is above {found['tolerance']:.3g}"
    return found


def judged(value: float, tolerance: float) -> dict:
    """Put a number beside the largest that it may be."""
    return {"value": value, "tolerance": tolerance, "holds": bool(value <= tolerance)}


def distance(found: np.ndarray, wanted: np.ndarray) -> float:
    """Return max |found - wanted| over the root mean square of `wanted`; infinite for NaNs."""
    largest = float(np.abs(found - wanted).max() / np.sqrt(np.square(wanted).mean()))
    return largest if np.isfinite(largest) else float("inf")


@cache
def reference() -> dict[str, np.ndarray]:
    """Read the arrays that a CPU computed."""
    with np.load(REFERENCE, allow_pickle=False) as content:
        return dict(content)


def on_host(parallel, state):
    """Copy a placed state."""
    return jax.tree.map(np.array, parallel.single(state))


def memory_in_use() -> int:
    """Return the bytes in use on the first device, 0 where they are not counted."""
    return (jax.local_devices()[0].memory_stats() or {}).get("bytes_in_use", 0)


def main() -> None:
    """Write the reference."""
    with jax.default_matmul_precision("highest"):
        arrays = {name: compute() for name, compute in COMPUTED.items()}
    with replacing(Path(sys.argv[1]), "wb") as file:
        np.savez_compressed(file, **arrays)  # pyright: ignore[reportArgumentType]


if __name__ == "__main__":
    main()
