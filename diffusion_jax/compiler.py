"""What XLA is told for each platform, with its reason; each large program is compiled with it."""

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
FUSIONS = "xla_cpu_experimental_ynn_fusion_type"
OPTIONS: dict[str, dict[str, Any]] = {
    "cpu": {
        FUSIONS: YNNPACK,
        "xla_disable_hlo_passes": DROPS_BARRIERS,
    }
}


@cache
def compiler_options() -> dict[str, Any]:
    """What this platform's programs are compiled with: those options that its compiler knows."""
    options = OPTIONS.get(jax.default_backend(), {})
    return {name: value for name, value in options.items() if _known({name: value})}


def _known(options: dict[str, Any]) -> bool:
    try:
        jax.jit(lambda: 0, compiler_options=options).lower().compile()
    except jax.errors.JaxRuntimeError:
        return False
    return True


# Where no kernel's gradient is asked for, its convolutions of few channels are faster as well: a
# network of 32 is 1.10 to 1.16 times as fast, one of 64 0.98, of 128 0.94.
NARROW = 64  # channels


def sampling_options(channels: int) -> dict[str, Any]:
    """`compiler_options` for calls of a network of so many channels, at its first level."""
    options = compiler_options()
    if channels >= NARROW or FUSIONS not in options:
        return options
    return {**options, FUSIONS: f"{YNNPACK},LIBRARY_FUSION_TYPE_INDIVIDUAL_CONVOLUTION"}


def written(arrays: Any) -> Any:
    """The arrays, all of them in memory on a CPU before anything that uses one is computed.

    In programs that are compiled with `compiler_options`; others drop it. XLA's CPU compiler makes
    a program of its own for every array that is written, and repeats in each what leads to it
    rather than read what another wrote. Elsewhere the arrays alone.
    """
    return jax.lax.optimization_barrier(arrays) if jax.default_backend() == "cpu" else arrays
