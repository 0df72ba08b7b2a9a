"""Configurations: read from files, changed on the command line, checked, kept as strict JSON."""

from diffusion_jax.config.files import (
    CONFIGS,
    Config,
    default_config,
    describe,
    deviations,
    differences,
    flatten,
    from_json,
    load,
    modernised,
    override,
    stretched,
    to_json,
)

__all__ = [
    "CONFIGS",
    "Config",
    "default_config",
    "describe",
    "deviations",
    "differences",
    "flatten",
    "from_json",
    "load",
    "modernised",
    "override",
    "stretched",
    "to_json",
]
