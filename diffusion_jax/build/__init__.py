"""From a configuration to functions: the only place where a name in a config becomes code.

The configuration must have passed `configuration.check.check`.
"""

from diffusion_jax.build.model import Diffusion, Guidance, about, diffusion, schedule, source
from diffusion_jax.build.sampling import Steering, method
from diffusion_jax.build.updates import (
    Training,
    learning_rate,
    loss,
    timesteps,
    training,
)

__all__ = [
    "Diffusion",
    "Guidance",
    "Steering",
    "Training",
    "about",
    "diffusion",
    "learning_rate",
    "loss",
    "method",
    "schedule",
    "source",
    "timesteps",
    "training",
]
