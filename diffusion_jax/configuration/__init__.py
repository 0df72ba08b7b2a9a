"""Configurations: read from files, changed on the command line, checked, kept as strict JSON."""

from diffusion_jax.configuration.as_json import (
    Config,
    as_it_was,
    deviations,
    differences,
    flatten,
    from_json,
    modernised,
    to_json,
)
from diffusion_jax.configuration.change import (
    changed,
    describe,
    override,
    stretched,
    with_shorter_warmup,
)
from diffusion_jax.configuration.load import (
    CONFIGS,
    config,
    default_config,
    load,
    shipped,
    with_variant,
)

__all__ = [
    "CONFIGS",
    "Config",
    "as_it_was",
    "changed",
    "config",
    "default_config",
    "describe",
    "deviations",
    "differences",
    "flatten",
    "from_json",
    "load",
    "modernised",
    "override",
    "shipped",
    "stretched",
    "to_json",
    "with_shorter_warmup",
    "with_variant",
]
