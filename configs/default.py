"""All keys with their defaults: DDPM's network and optimiser on CIFAR-10, otherwise our choices.

configs/ddpm.py is DDPM's run as published. The other files start from this one. Keys are locked: a
misspelt one is an error.
"""

from ml_collections import ConfigDict

from diffusion_jax.configuration import default_config


def get_config() -> ConfigDict:
    """Return the full tree of keys; docs/configuration.md says what each does."""
    return default_config()
