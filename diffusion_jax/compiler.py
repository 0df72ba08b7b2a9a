"""What XLA is told for each platform, with its reason; each large program is compiled with it."""

from functools import cache
from typing import Any

import jax

# YNNPACK's sums over places are up to 30 times as fast as the loops that XLA writes for a CPU, its
# products of many small matrices up to twice as fast as Eigen's; its kernel gradients of large
# feature maps take 3 times as long. So: all but its convolutions.
YNNPACK = "LIBRARY_FUSION_TYPE_REDUCE,LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"
OPTIONS: dict[str, dict[str, Any]] = {"cpu": {"xla_cpu_experimental_ynn_fusion_type": YNNPACK}}


@cache
def compiler_options() -> dict[str, Any]:
    """What this platform's programs are compiled with; nothing where its compiler knows no such."""
    options = OPTIONS.get(jax.default_backend(), {})
    try:
        if options:
            jax.jit(lambda: 0, compiler_options=options).lower().compile()
    except jax.errors.JaxRuntimeError:
        return {}
    return options
