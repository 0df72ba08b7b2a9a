"""Configurations: read from files, changed on the command line, checked, kept as strict JSON."""

from diffusion_jax.config.files import (
    ADDED,
    DEFAULT,
    Config,
    describe,
    differences,
    flatten,
    from_json,
    load,
    override,
    stretched,
    to_json,
    with_added_keys,
    without_added_keys,
)

__all__ = [
    "ADDED",
    "DEFAULT",
    "Config",
    "describe",
    "differences",
    "flatten",
    "from_json",
    "load",
    "override",
    "stretched",
    "to_json",
    "with_added_keys",
    "without_added_keys",
]
