"""Checks of a configuration, before anything is downloaded, read or compiled."""

import math
from collections.abc import Iterable
from typing import Any, get_args, get_origin

from diffusion_jax.configuration.as_json import Config, flatten
from diffusion_jax.configuration.change import describe
from diffusion_jax.configuration.keys import OWN, Key, keys
from diffusion_jax.configuration.tables import (
    TABLES,
    chosen,
    chosen_keywords,
    chosen_network,
    names_of,
)
from diffusion_jax.core.predictions import prediction
from diffusion_jax.core.process import is_learned
from diffusion_jax.core.schedules import from_betas, zero_terminal
from diffusion_jax.core.tables import bind
from diffusion_jax.errors import UserError, unknown_name


def check(config: Config) -> None:
    """Refuse unknown names, wrong types and numbers outside their range.

    Raises:
        UserError: a key is missing, unknown or of another type, a name is unknown, or a number
            lies outside its range.
    """
    values = flatten(config.to_dict())
    known = keys(names_of(values))
    _check_types(values, known)
    for name, key in known.items():
        if key.names and values[name] not in key.names:
            error = unknown_name(f"config.{name}", values[name], key.names)
            raise UserError(f"{error}; {OWN}") if name in TABLES else error
        if type(key.low) is not float or math.isfinite(key.low):
            _check_range(name, values[name], key.low, key.high)
    _check_samplers(config)
    _check_pure_noise(config)
    learned = is_learned(chosen(config, "variance"))
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
    chosen_network(config, out_channels=1)


def check_effect(config: Config, given: Iterable[str]) -> None:
    """Refuse settings that the functions chosen by a configuration do not take.

    Args:
        given: dotted keys that somebody has set.

    Raises:
        UserError: one has no effect.
    """
    flat = flatten(config.to_dict())
    known = keys(names_of(flat))
    chosen_names = {*names_of(flat).values()}
    for name in given:
        users = known[name].users
        if users and not chosen_names & {*users}:
            taken = ", ".join(f"'{user}'" for user in users)
            raise UserError(f"config.{name} has no effect here; it is for {taken}; leave it out")


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


def _check_types(values: dict[str, Any], known: dict[str, Key]) -> None:
    for name, key in known.items():
        if name not in values:
            raise UserError(f"the config lacks the key '{name}'; start from the config 'default'")
        if not _is(values[name], key.type):
            text = f"{values[name]!r:.50}"
            raise UserError(f"config.{name} is {text}; expected {describe(key.type)}")
    for name in values.keys() - known.keys():
        raise UserError(f"the config has an unknown key '{name}'; start from the config 'default'")


def _check_range(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        ends = f"at least {low}" if high == math.inf else f"between {low} and {high}"
        raise UserError(f"config.{name} is {value}; it must be {ends}")


def _check_samplers(config: Config) -> None:
    """Let every sampler check its arguments."""
    settings, variance = config.sample.to_dict(), chosen(config, "variance")
    for make in TABLES["sample.sampler"].values():
        try:
            bind(make, settings, variance=variance)()
        except ValueError as error:
            raise UserError(f"config.sample.{error}") from error


def _check_pure_noise(config: Config) -> None:
    """Refuse predictions that do not determine x0 at a step of pure noise."""
    if not config.schedule.zero_terminal:
        return
    two_steps = zero_terminal(from_betas([0.1, 0.2]))
    try:
        prediction(config.prediction, two_steps, **chosen_keywords(config, "prediction"))
    except ValueError as error:
        raise UserError(
            f"config.prediction '{config.prediction}' says nothing about the image at the last "
            "step, which config.schedule.zero_terminal makes pure noise; set config.prediction to "
            "'v' or 'x0'"
        ) from error


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
    if dropout and not config.model.get("classes"):
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
