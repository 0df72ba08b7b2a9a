"""All keys, with the values of DDPM's CIFAR-10 recipe (Ho et al. 2020, appendix B).

The other files start from this one. Keys are locked: a misspelt one is an error.
"""

from ml_collections import ConfigDict

from diffusion_jax.config import default_config


def get_config() -> ConfigDict:
    """Return the full tree of keys; docs/configuration.md says what each does."""
    return default_config()


def change(config: ConfigDict, variants: dict[str, dict], variant: str) -> ConfigDict:
    """Apply a variant to a configuration and add it to its name; '' changes nothing."""
    if variant:
        if variant not in variants:
            raise ValueError(f"no variant '{variant}'; there are: {', '.join(variants)}")
        config.update(variants[variant])
        config.name = f"{config.name}_{variant}"
    return config
