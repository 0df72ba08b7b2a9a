"""Checks of a configuration, before anything is downloaded, read or compiled."""

import math
from typing import Any, get_args, get_origin

from diffusion_jax.config import Config, describe, flatten
from diffusion_jax.core.objective import LOSSES, WEIGHTS
from diffusion_jax.core.predictions import PREDICTIONS
from diffusion_jax.core.process import DECODERS, VARIANCES
from diffusion_jax.core.schedules import SCHEDULES
from diffusion_jax.core.timesteps import TIMESTEPS
from diffusion_jax.devices.sharding import MODES
from diffusion_jax.errors import UserError, unknown_name
from diffusion_jax.models.unet import UNet, check_settings
from diffusion_jax.samplers.grids import GRIDS
from diffusion_jax.samplers.sample import SAMPLERS
from diffusion_jax.training.optimizer import DECAYS

# Which table a name must be in.
NAMES = {
    "parallel": MODES,
    "schedule.name": SCHEDULES,
    "prediction": PREDICTIONS,
    "variance": VARIANCES,
    "decoder": DECODERS,
    "loss": LOSSES,
    "weight": WEIGHTS,
    "timesteps": TIMESTEPS,
    "optimizer.decay": DECAYS,
    "sample.sampler": SAMPLERS,
    "sample.grid": GRIDS,
}

# Ranges of numbers, ends included; a number has the type of the lower end.
RANGES = {
    "seed": (0, 2**31 - 1),
    "schedule.steps": (1, 10**6),
    "optimizer.learning_rate": (0.0, math.inf),
    "optimizer.warmup_steps": (0, 2**31 - 1),
    "optimizer.b1": (0.0, 0.999999),
    "optimizer.b2": (0.0, 0.9999999),
    "optimizer.eps": (0.0, math.inf),
    "optimizer.weight_decay": (0.0, math.inf),
    "optimizer.clip_norm": (0.0, math.inf),
    "ema.decay": (0.0, 1.0),
    "train.steps": (1, 2**31 - 1),
    "train.minutes": (0.0, 10**6),
    "train.batch_size": (1, 10**6),
    "train.log_every": (0, math.inf),
    "train.save_every": (0, math.inf),
    "train.sample_every": (0, math.inf),
    "train.keep": (1, math.inf),
    "train.keep_every": (0, math.inf),
    "train.keep_best": (0, math.inf),
    "train.accumulate": (1, math.inf),
    "train.max_skipped": (1, math.inf),
    "train.label_dropout": (0.0, 0.999),
    "sample.num": (1, 10**6),
    "sample.batch_size": (0, 10**6),
    "sample.steps": (0, math.inf),
    "sample.eta": (0.0, 1.0),
    "sample.churn": (0.0, math.inf),
    "sample.langevin_steps": (1, 10**4),
    "sample.langevin_rate": (1e-6, 3.999),
    "sample.guidance": (0.0, 1000.0),
    "sample.jump": (1, 10**6),
    "sample.repeats": (1, 10**4),
    "data.image_size": (0, 8192),
    "data.workers": (0, 256),
}

# The types of all other keys; a float may be None if it has no default.
TYPES = {
    "name": str,
    "profile": str,
    "data.name": str,
    "data.dir": str,
    "data.split": str,
    "data.channels": int,
    "data.flip": bool,
    "data.stream": bool,
    "schedule.beta_start": float,
    "schedule.beta_end": float,
    "schedule.log_snr_max": float | None,
    "schedule.log_snr_min": float,
    "schedule.noise_min": float,
    "schedule.noise_max": float,
    "schedule.betas": tuple[float, ...],
    "model.channels": int,
    "model.multipliers": tuple[int, ...],
    "model.blocks": int,
    "model.attention_resolutions": tuple[int, ...],
    "model.heads": int,
    "model.dropout": float,
    "model.classes": int,
    "model.scale_shift_norm": bool,
    "model.resample_in_blocks": bool,
    "model.dtype": str,
    "model.remat": bool,
    "sample.clip": bool,
    "sample.guidance_interval": tuple[float, ...],
}


def check(config: Config) -> None:
    """Refuse unknown names, wrong types and numbers outside their range.

    Raises:
        UserError: a key is missing, unknown or of another type, a name is unknown, or a number
            lies outside its range.
    """
    values = flatten(config.to_dict())
    _check_types(values)
    for key, table in NAMES.items():
        if values[key] not in table:
            raise unknown_name(f"config.{key}", values[key], table)
    for key, (low, high) in RANGES.items():
        if not low <= values[key] <= high:
            ends = f"at least {low}" if high == math.inf else f"between {low} and {high}"
            raise UserError(f"config.{key} is {values[key]}; it must be {ends}")
    learned = VARIANCES[config.variance].learned
    if learned and config.loss == "weighted":
        raise UserError(
            f"config.variance '{config.variance}' is never trained by config.loss 'weighted'; "
            "set config.loss to 'hybrid' or 'bound'"
        )
    if not learned and config.loss == "hybrid":
        raise UserError(
            f"config.loss 'hybrid' needs a learned variance, but config.variance is "
            f"'{config.variance}'; set it to 'learned_range', or config.loss to 'weighted'"
        )
    _check_classes(config)
    profiled_steps(config)
    if not config.name:
        raise UserError("config.name is empty; set it to a name for the run's folder")
    check_settings(UNet(out_channels=1, **config.model))


def profiled_steps(config: Config) -> tuple[int, int]:
    """Return the first and last step that config.profile asks to trace, 0 and 0 for none.

    Raises:
        UserError: it is not of the form 100:110.
    """
    first, colon, last = config.profile.partition(":")
    if not config.profile:
        return 0, 0
    if not colon or not (first + last).isdecimal() or not 0 < int(first or 0) <= int(last or 0):
        raise UserError(f"config.profile is '{config.profile}'; write the steps as in 100:110")
    return int(first), int(last)


def _check_types(values: dict[str, Any]) -> None:
    numbers = {key: type(low) for key, (low, _) in RANGES.items()}
    types = {**dict.fromkeys(NAMES, str), **numbers, **TYPES}
    for key, kind in types.items():
        if key not in values:
            raise UserError(f"the config lacks the key '{key}'; start from configs/default.py")
        if not _is(values[key], kind):
            text = f"{values[key]!r:.50}"
            raise UserError(f"config.{key} is {text}; expected {describe(kind)}")
    for key in values.keys() - types.keys():
        raise UserError(f"the config has an unknown key '{key}'; start from configs/default.py")


def _is(value: Any, kind: Any) -> bool:
    if get_origin(kind) is tuple:
        return type(value) is tuple and all(_is(each, get_args(kind)[0]) for each in value)
    if kind is float:
        return type(value) is int or (type(value) is float and math.isfinite(value))
    if get_args(kind):
        return value is None or _is(value, get_args(kind)[0])
    return type(value) is kind


def _check_classes(config: Config) -> None:
    dropout = config.train.label_dropout
    if dropout and not config.model.classes:
        raise UserError("config.train.label_dropout needs classes; set config.model.classes")
    if config.sample.guidance != 1.0 and not dropout:
        raise UserError(
            f"config.sample.guidance is {config.sample.guidance:g}; guidance needs a run trained "
            "on classes with config.train.label_dropout above 0"
        )
    interval = config.sample.guidance_interval
    if len(interval) != 2 or not 0.0 <= interval[0] <= interval[1] <= 1.0:
        raise UserError(
            f"config.sample.guidance_interval is {interval}; it must be two ascending numbers, 0..1"
        )
