"""Denoising diffusion probabilistic models in JAX and Flax, verified term by term.

    import diffusion_jax as dj

    run = dj.train("digits", "runs/digits")          # or: run = dj.load("runs/digits")
    images = run.sample(16, sampler="dpmpp_2m", steps=20)
    test = dj.load_data("digits", "test")
    bits = run.bits_per_dim(test.images, test.labels)

Every formula is a pure function in `core`, `samplers` and `truth`, usable without these.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diffusion_jax.certification.certificate import certify
    from diffusion_jax.configuration.load import config
    from diffusion_jax.core.objective import LOSSES, WEIGHTS
    from diffusion_jax.core.predictions import PREDICTIONS
    from diffusion_jax.core.process import DECODERS, VARIANCES
    from diffusion_jax.core.schedules import SCHEDULES
    from diffusion_jax.core.timesteps import TIMESTEPS
    from diffusion_jax.errors import Diverged, Stopped, Unsaved, UserError
    from diffusion_jax.models.network import MODELS
    from diffusion_jax.run.load import load
    from diffusion_jax.run.run import Run
    from diffusion_jax.run.steps import load_data, steps
    from diffusion_jax.run.train import train
    from diffusion_jax.samplers.grids import GRIDS
    from diffusion_jax.samplers.sample import SAMPLERS
    from diffusion_jax.training.optimizer import DECAYS

__version__ = "0.1.0"
__all__ = [
    "DECAYS",
    "DECODERS",
    "GRIDS",
    "LOSSES",
    "MODELS",
    "PREDICTIONS",
    "SAMPLERS",
    "SCHEDULES",
    "TIMESTEPS",
    "VARIANCES",
    "WEIGHTS",
    "Diverged",
    "Run",
    "Stopped",
    "Unsaved",
    "UserError",
    "certify",
    "config",
    "load",
    "load_data",
    "steps",
    "train",
]

# Loaded on first use, so that importing one module of the package does not import all others.
_HOMES = {
    "certification.certificate": ("certify",),
    "configuration.load": ("config",),
    "core.objective": ("LOSSES", "WEIGHTS"),
    "core.predictions": ("PREDICTIONS",),
    "core.process": ("DECODERS", "VARIANCES"),
    "core.schedules": ("SCHEDULES",),
    "core.timesteps": ("TIMESTEPS",),
    "errors": ("Diverged", "Stopped", "Unsaved", "UserError"),
    "models.network": ("MODELS",),
    "run.steps": ("load_data", "steps"),
    "run.load": ("load",),
    "run.run": ("Run",),
    "run.train": ("train",),
    "samplers.grids": ("GRIDS",),
    "samplers.sample": ("SAMPLERS",),
    "training.optimizer": ("DECAYS",),
}


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{home}"), name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
