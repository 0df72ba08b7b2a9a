"""All tables of functions, and the one rule by which a configuration chooses from them.

A key names the entry; the entry's arguments are the keys of the same names in the same group.
"""

from collections.abc import Callable, Mapping
from typing import Any

from diffusion_jax.core.objective import LOSSES, WEIGHTS
from diffusion_jax.core.predictions import PREDICTIONS
from diffusion_jax.core.process import DECODERS, VARIANCES
from diffusion_jax.core.schedules import SCHEDULES
from diffusion_jax.core.tables import bind, keywords
from diffusion_jax.core.timesteps import TIMESTEPS
from diffusion_jax.errors import UserError
from diffusion_jax.models.network import MODELS
from diffusion_jax.samplers.grids import GRIDS
from diffusion_jax.samplers.sample import SAMPLERS
from diffusion_jax.training.optimizer import DECAYS

# By the key that names an entry.
TABLES: dict[str, dict[str, Callable]] = {
    "schedule.name": SCHEDULES,
    "prediction": PREDICTIONS,
    "variance": VARIANCES,
    "decoder": DECODERS,
    "loss": LOSSES,
    "weight": WEIGHTS,
    "timesteps": TIMESTEPS,
    "model.name": MODELS,
    "optimizer.decay": DECAYS,
    "sample.sampler": SAMPLERS,
    "sample.grid": GRIDS,
}


# Arguments that are no keys, because the caller supplies them.
SUPPLIED = {
    "schedule.name": ("steps", "levels"),
    "model.name": ("out_channels",),
    "sample.sampler": ("variance",),
}


def names_of(flat: Mapping[str, Any]) -> dict[str, str]:
    """Return the names that a configuration, by dotted key, has under the keys of `TABLES`."""
    return {key: flat[key] for key in TABLES if key in flat}


def chosen(config: Any, key: str, **given: Any) -> Callable:
    """Return the function that `config` names under a key of `TABLES`, its arguments bound.

    Args:
        given: values of the arguments in `SUPPLIED`.
    """
    name, settings = _settings(config, key)
    return bind(TABLES[key][name], settings, **given)


def chosen_keywords(config: Any, key: str) -> dict[str, Any]:
    """Return the arguments that a configuration has for the function that it names."""
    name, settings = _settings(config, key)
    return keywords(TABLES[key][name], settings)


def chosen_network(config: Any, out_channels: int) -> Any:
    """Return the network that `config` names.

    Raises:
        UserError: it refuses its settings, or has a field that is no key.
    """
    try:
        return chosen(config, "model.name", out_channels=out_channels)()
    except TypeError as error:
        raise UserError(
            f"the network '{config.model.name}' cannot be made: {error}; give each of its fields a "
            "default, which makes it a key of the config"
        ) from error


def _settings(config: Any, key: str) -> tuple[str, dict[str, Any]]:
    group, _, leaf = key.rpartition(".")
    settings = dict((config[group] if group else config).items())
    return settings.pop(leaf), settings


def defined_by_user(function: Callable) -> bool:
    """Return whether an entry of a table was defined outside this package."""
    return module_of(function).split(".")[0] != "diffusion_jax"


def module_of(function: Any) -> str:
    """Return the name of the module that defines a function, also if its arguments are bound."""
    return getattr(getattr(function, "func", function), "__module__", "") or ""
