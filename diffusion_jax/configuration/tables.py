"""All tables of functions, and the one rule by which a configuration chooses from them.

A key names the entry; the entry's arguments are the keys of the same names in the same group.
"""

from collections.abc import Callable
from typing import Any

from diffusion_jax.core.objective import LOSSES, WEIGHTS
from diffusion_jax.core.predictions import PREDICTIONS
from diffusion_jax.core.process import DECODERS, VARIANCES
from diffusion_jax.core.schedules import SCHEDULES
from diffusion_jax.core.tables import bind, keywords
from diffusion_jax.core.timesteps import TIMESTEPS
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


def chosen(config: Any, key: str, **given: Any) -> Callable:
    """Return the function that `config` names under a key of `TABLES`, its arguments bound.

    Args:
        given: values of arguments that are not keys.
    """
    name, settings = _settings(config, key)
    return bind(TABLES[key][name], settings, **given)


def chosen_keywords(config: Any, key: str) -> dict[str, Any]:
    """Return the arguments that a configuration has for the function that it names."""
    name, settings = _settings(config, key)
    return keywords(TABLES[key][name], settings)


def _settings(config: Any, key: str) -> tuple[str, dict[str, Any]]:
    group, _, leaf = key.rpartition(".")
    settings = dict((config[group] if group else config).items())
    return settings.pop(leaf), settings
