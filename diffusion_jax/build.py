"""Configuration to objects: the only place where a name in a config becomes code."""

import inspect
from collections.abc import Callable
from typing import NamedTuple

import jax
import optax

from diffusion_jax.config import Config
from diffusion_jax.core.objective import TIMESTEPS, WEIGHTS
from diffusion_jax.core.predictions import PREDICTIONS, Denoise, Prediction, denoiser, prediction
from diffusion_jax.core.process import VARIANCES
from diffusion_jax.core.schedules import SCHEDULES, Schedule
from diffusion_jax.data.sources import open_source
from diffusion_jax.errors import UserError, unknown_name
from diffusion_jax.models import network
from diffusion_jax.models.unet import UNet, check_image_size
from diffusion_jax.run_folder import DataSpec
from diffusion_jax.samplers.base import Sampler
from diffusion_jax.samplers.sample import SAMPLERS
from diffusion_jax.training import optimizer as optimizers
from diffusion_jax.training.step import Loss, make_loss

PAPER_STEPS = 1000  # the time that enters the network runs over 0 .. 999, whatever T is


class Diffusion(NamedTuple):
    """What a run diffuses with: everything but parameters and data.

    network: `(params, x, t, label, dropout_keys) -> output`; the last two may be None.
    """

    data: DataSpec
    schedule: Schedule
    meaning: Prediction
    model: UNet
    network: Callable

    def init(self, key: jax.Array):
        """Fresh parameters."""
        return network.init(self.model, key, self.data.shape)

    def denoise(self, params, label: jax.Array | None, clip: bool) -> Denoise:
        """The denoiser of these parameters, labels `[b]` closed over, dropout off."""
        return denoiser(lambda x, t: self.network(params, x, t, label, None), self.meaning, clip)


def source(config: Config, split: str):
    """The configured data set's split, opened but not read; see `data.sources.open_source`."""
    data = config.data
    return open_source(data.name, split, data.dir, data.image_size, data.channels)


def schedule(config: Config, levels: int) -> Schedule:
    """The configured noise schedule for data of this number of levels.

    Raises:
        UserError: the name is unknown or its numbers are out of range.
    """
    make = _named(SCHEDULES, "schedule.name", config)
    given = {**config.schedule.to_dict(), "levels": levels}
    wanted = {key: given[key] for key in inspect.signature(make).parameters if key in given}
    try:
        return make(**wanted)
    except ValueError as error:
        raise UserError(f"config.schedule: {error}") from error


def diffusion(config: Config, data: DataSpec) -> Diffusion:
    """Schedule, prediction and network for data of this shape.

    Raises:
        UserError: a name is unknown, a size does not fit, the classes do not match the data.
    """
    for key, table in (("variance", VARIANCES), ("weight", WEIGHTS), ("timesteps", TIMESTEPS)):
        _named(table, key, config)
    _named(PREDICTIONS, "prediction", config)
    if config.model.classes not in (0, data.classes):
        raise UserError(
            f"config.model.classes is {config.model.classes}, the data has {data.classes}; "
            f"set it to {data.classes} or 0"
        )
    noising = schedule(config, data.levels)
    try:
        meaning = prediction(config.prediction, noising)
    except ValueError as error:
        raise UserError(f"config.schedule '{config.schedule.name}': {error}") from error
    model = UNet(out_channels=data.shape[-1], **config.model)
    check_image_size(*data.shape[:2], levels=len(config.model.multipliers))
    return Diffusion(data, noising, meaning, model, _network(model, noising.steps))


def _network(model: UNet, steps: int) -> Callable:
    def output(params, x, t, label, dropout_keys):
        time = t * (PAPER_STEPS / steps)
        label = label if model.classes else None
        return network.apply(model, params, x, time, label, dropout_keys)

    return output


def loss(config: Config, parts: Diffusion) -> Loss:
    """The configured training loss `(params, step, batch) -> scalar`."""
    return make_loss(
        parts.schedule,
        parts.meaning,
        parts.network,
        weight=config.weight,
        timesteps=config.timesteps,
        levels=parts.data.levels,
        flip=config.data.flip,
        seed=config.seed,
        batch_size=config.train.batch_size,
    )


def learning_rate(config: Config) -> optax.Schedule:
    """The configured learning rate as a function of the step.

    Raises:
        UserError: the decay is unknown.
    """
    part = config.optimizer
    decay = _named(optimizers.DECAYS, "optimizer.decay", config)
    return optimizers.learning_rate(
        part.learning_rate, part.warmup_steps, decay, config.train.steps
    )


def optimizer(config: Config, rate: optax.Schedule) -> optax.GradientTransformation:
    """The configured optimiser."""
    part = config.optimizer
    return optimizers.optimizer(rate, part.b1, part.b2, part.eps, part.weight_decay, part.clip_norm)


def sampler(config: Config, name: str = "ancestral") -> Sampler:
    """A sampler of the configured variance.

    Raises:
        UserError: the name is unknown.
    """
    if name not in SAMPLERS:
        raise unknown_name("sampler", name, SAMPLERS)
    return SAMPLERS[name](config.variance)


def _named(table: dict, key: str, config: Config):
    """The entry of `table` that the config names at `key`."""
    value = config
    for part in key.split("."):
        value = value[part]
    if value not in table:
        raise unknown_name(f"config.{key}", value, table)
    return table[value]
