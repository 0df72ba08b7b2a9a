"""XLA options per platform, with their reasons; every large program is compiled with them."""

from functools import cache
from typing import Any

import jax

# YNNPACK's sums over places are up to 30 times as fast as the loops that XLA writes for a CPU, its
# products of many small matrices up to twice as fast as Eigen's; its kernel gradients of large
# feature maps take 3 times as long. So: all but its convolutions.
YNNPACK = "LIBRARY_FUSION_TYPE_REDUCE,LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"
# The pass that drops optimisation barriers: without them what the backward pass should compute
# again is merged with what it was first, and what needs no gradient (each kernel transposed) is
# done before the forward pass and kept.
DROPS_BARRIERS = "cse_barrier_expander"
OPTIONS: dict[str, dict[str, Any]] = {
    "cpu": {
        "xla_cpu_experimental_ynn_fusion_type": YNNPACK,
        "xla_disable_hlo_passes": DROPS_BARRIERS,
    }
}


@cache
def compiler_options() -> dict[str, Any]:
    """Return this platform's options, without those that its compiler does not know."""
    options = OPTIONS.get(jax.default_backend(), {})
    return {name: value for name, value in options.items() if known({name: value})}


def known(options: dict[str, Any]) -> bool:
    """Whether this platform's compiler accepts these options."""
    try:
        jax.jit(lambda: 0, compiler_options=options).lower().compile()
    except jax.errors.JaxRuntimeError:
        return False
    return True
