"""The likelihood that a trained run gives to images."""

import math
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from diffusion_jax.core.schedules import uniform_log_snr
from diffusion_jax.data.arrays import from_arrays
from diffusion_jax.data.dataset import Dataset
from diffusion_jax.devices import sharding
from diffusion_jax.errors import Diverged, UserError
from diffusion_jax.evaluation import likelihood, report
from diffusion_jax.evaluation.finished_batches import (
    FinishedBatches,
    ProgressDisplay,
    measure_in_batches,
)

if TYPE_CHECKING:
    from diffusion_jax.run.run import Run

IMAGES_AT_ONCE = 64  # the default batch size of an evaluation

Results = dict[str, dict[str, np.ndarray]]


class Likelihood(NamedTuple):
    """The bound on the negative log-likelihood of images, in bits per dimension.

    mean, stderr: over the images; the standard error of a single image is None.
    per_image: float64 `[n]`.
    terms: mean and standard error of `prior`, `diffusion` and `reconstruction`, whose sum it is.
    per_timestep: one row per step (or stratum of steps), see `evaluation.report.per_timestep`.
    """

    mean: float
    stderr: float | None
    per_image: np.ndarray
    terms: dict[str, dict[str, float | None]]
    per_timestep: list[dict[str, Any]]

    def __str__(self) -> str:
        spread = "" if self.stderr is None else f" +- {self.stderr:.4f}"
        return f"{self.mean:.4f}{spread} bits/dim over {len(self.per_image)} images"


def measures(
    run: "Run", every: int, seed: int, trajectory: bool = False, ode: int | None = None
) -> list[likelihood.Measure]:
    """Return the measures of an evaluation: the bound, and what else is asked for.

    Args:
        every: draw one t from each group of this many steps.
        trajectory: also the bound from whole trajectories.
        ode: also the likelihood by the probability-flow ODE, in this number of steps, and in half
            of them (`ode_half`), from which its error is estimated.
    """
    diffusion, clip = run.diffusion, run.config.sample.clip

    def denoise(params, label, grid=None):
        return diffusion.denoise(params, label, clip, grid)

    levels, reverse = diffusion.data.levels, diffusion.reverse
    wanted = [likelihood.bound_measure(reverse, denoise, levels, every, seed)]
    if trajectory:
        wanted.append(likelihood.trajectory_measure(reverse, denoise, levels, seed))
    if ode:
        wanted.append(
            likelihood.bound_measure(reverse, denoise, levels, every, seed, dequantised=True)
        )
        for name, steps in (("ode", ode), ("ode_half", ode // 2)):
            if steps:
                grid = uniform_log_snr(diffusion.schedule, steps + 1)
                on_grid = partial(denoise, grid=grid)
                wanted.append(likelihood.ode_measure(grid, on_grid, levels, seed, name))
    return wanted


def evaluate(
    run: "Run",
    dataset: Dataset,
    num: int,
    batch_size: int,
    wanted: list[likelihood.Measure],
    display: Callable[[str], ProgressDisplay],
    finished: FinishedBatches | None = None,
) -> Results:
    """Evaluate measures on the first `num` images of a data set.

    Args:
        display: `(name of a measure) -> where its progress is shown`.
        finished: where finished batches are kept.

    Raises:
        Diverged: a result is not finite.
    """
    layout = sharding.shardings(jax.devices())
    params = jax.device_put(run.params, layout.replicated)
    results = {
        measure.name: measure_in_batches(
            measure,
            params,
            likelihood.batches(dataset, num, batch_size, layout),
            finished,
            display(measure.name),
        )
        for measure in wanted
    }
    for name, arrays in results.items():
        for each in arrays.values():
            lost = np.argwhere(~np.isfinite(each))
            if lost.size:
                if finished is not None:
                    finished.remove()
                remedy = (
                    "use more --ode steps"
                    if name.startswith("ode")
                    else "try an earlier --checkpoint"
                )
                raise Diverged(f"{name}: image {lost[0][-1]} has no finite value; {remedy}")
    return results


def summary(run: "Run", results: Results, every: int) -> Likelihood:
    """Return the bound of evaluated images."""
    dims, bound = math.prod(run.data.shape), results["bound"]
    terms = report.bound_terms(bound, dims)
    total = terms.pop("total")
    assert total["mean"] is not None
    nats = np.asarray(bound["prior"], np.float64) + np.asarray(bound["nats"], np.float64).sum(0)
    rows = report.per_timestep(bound, run.schedule.steps, every, dims)
    per_image = nats / (dims * math.log(2.0))
    return Likelihood(total["mean"], total["stderr"], per_image, terms, rows)


def as_dataset(run: "Run", images: Any, labels: Any) -> Dataset:
    """Check images and labels given to an evaluation.

    Raises:
        UserError: they are not like what the run was trained on.
    """
    given, (h, w, c) = np.asarray(images), run.data.shape
    highest, classes = run.data.levels - 1, run.diffusion.classes
    given = given[..., None] if c == 1 and given.ndim == 3 else given
    if given.dtype.kind not in "iu" or given.shape[1:] != (h, w, c):
        raise UserError(
            f"images are {given.dtype} {list(given.shape)}; expected integer levels 0..{highest} "
            f"as uint8 [n, {h}, {w}, {c}]"
        )
    if given.size and not 0 <= given.min() <= given.max() <= highest:
        raise UserError(
            f"images have levels {given.min()}..{given.max()}; the run's data had 0..{highest}, "
            "while samples are 0..255"
        )
    if classes and labels is None:
        raise UserError(
            f"labels are missing: the network has {classes} classes; pass labels, one per image"
        )
    dataset = from_arrays(given.astype(np.uint8), labels, run.data.levels)
    if 0 < classes < dataset.classes:
        raise UserError(
            f"labels go up to {dataset.classes - 1}; the network has classes 0..{classes - 1}"
        )
    return dataset
