"""Likelihoods of a data set's images, batch by batch on all devices: bound, trajectory, ODE."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffusion_jax.core.arrays import pieces
from diffusion_jax.core.bound import Terms, prior_nats, strata, stratum_terms
from diffusion_jax.core.estimators import trajectory_nats
from diffusion_jax.core.flow import (
    dequantise,
    flow_nats,
    hutchinson,
    log_bin_nats,
    rademacher_probes,
)
from diffusion_jax.core.keys import Stream, image_keys, image_normal, stream_key
from diffusion_jax.core.predictions import Denoise, Denoised
from diffusion_jax.core.process import ReverseProcess, q_sample
from diffusion_jax.core.schedules import Schedule
from diffusion_jax.data.dataset import Dataset
from diffusion_jax.data.transforms import to_unit_range
from diffusion_jax.devices.compiler import compiler_options
from diffusion_jax.devices.sharding import Shardings, whole_batch

PROBES = 4  # of Hutchinson's estimator, per image

MakeDenoise = Callable[[Any, Any], Denoise]
Progress = Callable[[float], None]


class ImageBatch(NamedTuple):
    """A batch on the devices: integer levels, labels, and each image's position in the split."""

    levels: Any
    labels: Any
    index: Any


class Measure(NamedTuple):
    """One kind of likelihood: its name, and how to compute it for the images of a batch.

    run: `(params, ImageBatch, progress) -> {name: [..., b]}`; `progress` is called with the
        fraction of the batch that is done.
    """

    name: str
    run: Callable[[Any, ImageBatch, Progress], dict[str, np.ndarray]]


def batches(dataset: Dataset, num: int, batch_size: int, layout: Shardings):
    """Yield images 0 .. num-1 in batches of one shape, as `(how many of them count, ImageBatch)`.

    The last batch is padded with the split's first images.
    """
    batch_size = whole_batch(batch_size, layout)
    for first in range(0, num, batch_size):
        index = np.arange(first, first + batch_size, dtype=np.int32)
        row = index % len(dataset.images)
        images = ImageBatch(dataset.images[row], dataset.labels[row], index)
        yield min(batch_size, num - first), jax.device_put(images, layout.split)


def _keys(seed: int, stream: Stream, images: ImageBatch) -> jax.Array:
    return image_keys(stream_key(seed, stream), images.index)


def _dequantised(seed: int, images: ImageBatch, levels: int) -> jax.Array:
    draw = jax.vmap(lambda key: jax.random.uniform(key, images.levels.shape[1:]))
    uniform = draw(_keys(seed, Stream.DEQUANTISE, images))
    return dequantise(images.levels.astype(jnp.float32), uniform, levels)


def _exactly(function: Callable) -> Any:
    """Compile with full float32 matrix products, which accelerators round by default."""

    def exact(*arguments):
        with jax.default_matmul_precision("highest"):
            return function(*arguments)

    return jax.jit(exact, compiler_options=compiler_options())


def bound_measure(
    reverse: ReverseProcess,
    denoise: MakeDenoise,
    levels: int,
    every: int,
    seed: int,
    dequantised: bool = False,
) -> Measure:
    """Measure every term of the bound: `prior` `[b]` and `Terms` `[s, b]`, one row per stratum.

    With `dequantised`, the data are spread uniformly over their levels' bins and the decoder is
    continuous: its density times the volume of a bin stands for the bin's probability.

    Args:
        denoise: `(params, label) -> denoiser`.
        every: steps per stratum.
    """

    def x0_of(images: ImageBatch):
        if dequantised:
            return _dequantised(seed, images, levels)
        return to_unit_range(images.levels, levels)

    @_exactly
    def prior(images: ImageBatch):
        return prior_nats(reverse.schedule, x0_of(images))

    @_exactly
    def terms(params, images: ImageBatch, runs) -> Terms:
        decoder = None if dequantised else levels
        given = denoise(params, images.labels)
        keys = _keys(seed, Stream.EVALUATE, images)
        return stratum_terms(reverse, given, decoder, keys, x0_of(images), runs)

    chunks = pieces(strata(reverse.schedule.steps, every))

    def run(params, images: ImageBatch, progress: Progress):
        done = []
        for count, runs in enumerate(chunks, 1):
            done.append(jax.tree.map(np.asarray, terms(params, images, runs)))
            progress(count / len(chunks))
        whole = jax.tree.map(lambda *rows: np.concatenate(rows), *done)
        if dequantised:
            whole.nats[0] -= log_bin_nats(levels, images.levels[0].size)
        return {"prior": np.asarray(prior(images)), **whole._asdict()}

    return Measure("bound_dequantised" if dequantised else "bound", run)


def trajectory_measure(
    reverse: ReverseProcess, denoise: MakeDenoise, levels: int, seed: int
) -> Measure:
    """Measure the bound from one whole trajectory per image: `nats` `[b]`."""

    @_exactly
    def nats(params, images: ImageBatch):
        x0, keys = to_unit_range(images.levels, levels), _keys(seed, Stream.TRAJECTORY, images)
        return trajectory_nats(reverse, denoise(params, images.labels), levels, keys, x0)

    return _single("trajectory", nats)


def ode_measure(
    grid: Schedule,
    denoise: Callable[[Any, Any], Denoise],
    levels: int,
    seed: int,
    name: str = "ode",
) -> Measure:
    """Measure -log(density x bin volume) of the probability-flow ODE: `nats` `[probes, b]`.

    Args:
        grid: the noise levels that the ODE is solved along.
        denoise: `(params, label) -> denoiser` along that grid.
        name: the measure's; all of one seed use the same dequantised images and probes.
    """

    @_exactly
    def nats(params, images: ImageBatch):
        x = _dequantised(seed, images, levels)
        keys = _keys(seed, Stream.PROBE, images)
        divergence = hutchinson(rademacher_probes(keys, PROBES, x.shape[1:]))
        # The image is scaled to the grid's first level; the scaling changes the volume.
        density = flow_nats(grid, denoise(params, images.labels), divergence, grid.signal[0] * x)
        volume = log_bin_nats(levels, x[0].size) + x[0].size * float(np.log(grid.signal[0]))
        return density - volume

    return _single(name, nats)


def _single(name: str, nats: Callable) -> Measure:
    def run(params, images: ImageBatch, progress: Progress):
        done = np.asarray(nats(params, images))
        progress(1.0)
        return {"nats": done}

    return Measure(name, run)


def progressive(
    schedule: Schedule, denoise: MakeDenoise, levels: int, seed: int, steps: list[int]
) -> Callable[[Any, ImageBatch], Denoised]:
    """Predict x0 from x_t at each of `steps`, as a receiver would who has the bits up to x_t.

    (Ho et al. 2020, section 4.3.) Returns `(params, images) -> Denoised [len(steps), b, h, w, c]`.
    """

    @_exactly
    def predict(params, images: ImageBatch):
        x0 = to_unit_range(images.levels, levels)
        eps = image_normal(_keys(seed, Stream.PROGRESSIVE, images), x0.shape[1:])

        def at_step(t):
            t = jnp.full(x0.shape[:1], t)
            return denoise(params, images.labels)(q_sample(schedule, x0, t, eps), t)

        return jax.lax.map(at_step, jnp.asarray(steps))

    return predict
