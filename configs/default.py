"""All keys, with the values of DDPM's CIFAR-10 recipe (Ho et al. 2020, appendix B).

The other files start from this one. Keys are locked: a misspelt one is an error.
"""

from ml_collections import ConfigDict

from diffusion_jax.configuration import default_config


def get_config() -> ConfigDict:
    """Return the full tree of keys; docs/configuration.md says what each does."""
    return default_config()
