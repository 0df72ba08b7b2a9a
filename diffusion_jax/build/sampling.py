"""The configured sampling method."""

from dataclasses import dataclass
from functools import partial

import numpy as np

from diffusion_jax.build.model import Diffusion, Guidance
from diffusion_jax.configuration import Config
from diffusion_jax.configuration.tables import chosen
from diffusion_jax.core.keys import fold, image_normal
from diffusion_jax.core.moves import descent
from diffusion_jax.core.schedules import Schedule
from diffusion_jax.errors import UserError
from diffusion_jax.samplers.base import Sampler
from diffusion_jax.samplers.generate import Method
from diffusion_jax.samplers.grids import make_grid
from diffusion_jax.samplers.measurement import masked, measured, resampled
from diffusion_jax.samplers.sample import prior_sample


@dataclass(frozen=True, eq=False)
class Steering:
    """Constraints on the images to draw.

    label: the class of every image; None gives image i the class i mod classes.
    source: an image `[h, w, c]` in [-1, 1] to start from, noised to the noisiest level of the
        grid with t <= `strength` (T - 1).
    known, seen: an image, and a mask that is 1 where the result has to agree with it.
    """

    label: int | None = None
    source: np.ndarray | None = None
    strength: float = 1.0
    known: np.ndarray | None = None
    seen: np.ndarray | None = None


def method(config: Config, diffusion: Diffusion, steering: Steering = Steering()) -> Method:
    """Build the configured sampling method, with this steering.

    Raises:
        UserError: the strength leaves no steps, or the class does not exist.
    """
    grid = _grid(config, diffusion, steering.strength)
    sampler = _sampler(config, steering)
    plan = sampler.plan(grid, descent(grid))
    part, top = config.sample, diffusion.schedule.steps - 1
    low, high = (fraction * top for fraction in part.guidance_interval)
    guidance = None if part.guidance == 1.0 else Guidance(part.guidance, (low, high))
    return Method(
        sampler,
        plan,
        grid.steps,
        lambda params, label: diffusion.denoise(params, label, part.clip, plan.points, guidance),
        _begin(grid, diffusion.data.shape, steering.source),
        _label(diffusion.classes, steering.label),
    )


def grid_steps(config: Config, diffusion: Diffusion) -> int:
    """Return the configured number of sampling steps, at most T; 0 in the config means T."""
    most = diffusion.schedule.steps
    return min(config.sample.steps or most, most)


def _grid(config: Config, diffusion: Diffusion, strength: float) -> Schedule:
    try:
        spacing = chosen(config, "sample.grid")
        grid = make_grid(spacing, diffusion.schedule, grid_steps(config, diffusion))
    except ValueError as error:
        raise UserError(f"config.sample: {error}") from error
    below = np.flatnonzero(grid.time <= strength * (diffusion.schedule.steps - 1))
    if not below.size:
        raise UserError(f"strength {strength:g} leaves no step; raise it or the number of steps")
    return grid.take(below)


def _sampler(config: Config, steering: Steering) -> Sampler:
    sampler = chosen(config, "sample.sampler", variance=chosen(config, "variance"))()
    if steering.known is None or steering.seen is None:
        return sampler
    held = measured(sampler, masked(steering.seen), steering.known)
    return resampled(held, config.sample.jump, config.sample.repeats)


def _begin(grid: Schedule, shape: tuple[int, int, int], source: np.ndarray | None):
    if source is None:
        return partial(prior_sample, grid, shape=shape)
    signal, noise = grid.signal[-1], grid.noise[-1]
    return lambda keys: signal * source + noise * image_normal(fold(keys, 0), shape)


def _label(classes: int, label: int | None):
    if not classes:
        if label is not None:
            raise UserError(
                f"class {label}: the run has no classes (config.model.classes is 0); train one "
                "with classes, for example --config=digits:conditional"
            )
        return None
    if label is None:
        return lambda index: (index % classes).astype(np.int32)
    if not 0 <= label < classes:
        raise UserError(f"class {label}: the run has classes 0..{classes - 1}")
    return lambda index: np.full(len(index), label, np.int32)
