"""Stage `device`: what the device is, and what it does at most."""

import jax

from benchmarks.harness import roofline, timing

# Name: type of the matrices, and precision of their products.
PRECISIONS = {
    "bfloat16": ("bfloat16", "default"),
    "tf32": ("float32", "tensorfloat32"),
    "float32": ("float32", "highest"),
}
ROUNDS = 5


def items(options, results, stack) -> dict:
    """Rates of products and convolutions in each precision, and of the memory."""
    return {"about": about} | {name: lambda name=name: rates(name) for name in PRECISIONS}


def about() -> dict:
    """Describe one device."""
    device = jax.devices()[0]
    stats = device.memory_stats() or {}
    return {
        "kind": device.device_kind,
        "count": jax.device_count(),
        "driver": device.client.platform_version,
        "memory_gib": stats.get("bytes_limit", 0) / 2**30,
    }


def rates(name: str) -> dict[str, float]:
    """Return operations/s of products and convolutions in 10^12, and memory traffic in GB/s."""
    dtype, precision = PRECISIONS[name]
    with jax.default_matmul_precision(precision):
        ceilings = roofline.Ceilings(dtype)
        found = ceilings.rates(timing.in_turn(ceilings.calls, ROUNDS))
    return {
        "matmul_tflops": found["matmul"] / 1e12,
        "convolution_tflops": found["convolution"] / 1e12,
        "bandwidth_gb_per_s": found["bandwidth"] / 1e9,
    }
