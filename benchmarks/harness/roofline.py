"""The roofline: operations of a program, rates of the device, and the least time they allow."""

from collections.abc import Callable
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr

from benchmarks.harness.timing import Rounds, each_timed, median


def count_operations(function: Callable, *arguments: Any) -> int:
    """Count the floating-point operations of matrix products and convolutions in one call.

    Padding counts, as in PyTorch's `FlopCounterMode`; XLA's own count leaves it out. Where our
    layers take a shorter way to the same result (`DoubleConv`), we count fewer than a peer.

    Args:
        arguments: arrays, or their shapes.
    """
    return _of(jax.make_jaxpr(function)(*arguments).jaxpr)


def _of(program: Jaxpr) -> int:
    return sum(_of_equation(equation) for equation in program.eqns)


def _of_equation(equation) -> int:
    if equation.primitive.name == "dot_general":
        return _dot(equation)
    if equation.primitive.name == "conv_general_dilated":
        return _convolution(equation)
    times = equation.params["length"] if equation.primitive.name == "scan" else 1
    inner = [_of(each) for value in equation.params.values() for each in _programs(value)]
    # Only one branch of a condition runs.
    return times * (max(inner) if equation.primitive.name == "cond" else sum(inner))


def _programs(value) -> list[Jaxpr]:
    if isinstance(value, ClosedJaxpr):
        return [value.jaxpr]
    if isinstance(value, Jaxpr):
        return [value]
    return [each for one in value for each in _programs(one)] if isinstance(value, tuple) else []


def _dot(equation) -> int:
    left = equation.invars[0].aval
    (contracted, _), _ = equation.params["dimension_numbers"]
    return 2 * prod(equation.outvars[0].aval.shape) * prod(left.shape[i] for i in contracted)


def _convolution(equation) -> int:
    kernel, numbers = equation.invars[1].aval, equation.params["dimension_numbers"]
    taps = prod(kernel.shape) // kernel.shape[numbers.rhs_spec[0]]
    # The gradient of a strided convolution sees its input with zeros in between.
    zeros = prod(equation.params["lhs_dilation"])
    return 2 * prod(equation.outvars[0].aval.shape) * taps // zeros


class Ceilings:
    """Measure the most one device does: matrix products, 3x3 convolutions, memory traffic.

    calls: what to time in turn with a program, for `rates`.
    """

    def __init__(self, dtype: str):
        small = jax.default_backend() == "cpu"
        # Large enough that only the work counts and no cache holds the data.
        side, images, channels = (2048, 16, 128) if small else (8192, 128, 256)
        self._repeats = 1 if small else 10
        # Random numbers: a chip that multiplies ones needs less power and runs faster.
        draw = np.random.default_rng(0).standard_normal
        square, x, kernel = (
            jnp.asarray(draw(shape, np.float32), dtype)
            for shape in ((side, side), (images, 32, 32, channels), (3, 3, channels, channels))
        )
        self._long = jnp.zeros(2**27 if small else 2**29, jnp.float32)
        self._add = jax.jit(lambda a: a + 1, donate_argnums=0)
        matmul, convolve = jax.jit(jnp.matmul), jax.jit(_convolve)
        self.calls = each_timed(
            {
                "matmul": lambda: self._repeat(lambda: matmul(square, square)),
                "convolution": lambda: self._repeat(lambda: convolve(x, kernel)),
                "bandwidth": lambda: self._repeat(self._read_and_write),
            }
        )
        self._amounts = {
            "matmul": 2 * side**3,
            "convolution": 2 * 9 * channels**2 * x[..., 0].size,
            "bandwidth": 2 * self._long.nbytes,
        }
        for call in self.calls.values():
            call()  # compiles

    def _repeat(self, action: Callable[[], jax.Array]) -> jax.Array:
        """Return the last result, which a device computes last."""
        return [action() for _ in range(self._repeats)][-1]

    def _read_and_write(self) -> jax.Array:
        self._long = self._add(self._long)
        return self._long

    def rates(self, rounds: Rounds) -> dict[str, float]:
        """Return operations/s of products and convolutions and bytes/s of memory, medians."""
        return {
            name: self._repeats * amount / median(rounds, name)
            for name, amount in self._amounts.items()
        }


def _convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
    numbers = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=numbers)


def least_bytes(compiled: Any) -> int:
    """Return the least a compiled program moves on each device: inputs, outputs, temporaries.

    A temporary is written and read once. The program may move it more often, and a cache may hold
    it.
    """
    used = compiled.memory_analysis()
    ends = used.argument_size_in_bytes + used.output_size_in_bytes
    return ends + 2 * used.temp_size_in_bytes


def floor(flops: float, moved: float, rates: dict[str, float], count: int) -> dict[str, float]:
    """Return the least seconds `count` devices need for these operations and bytes per device."""
    compute = flops / (count * max(rates["matmul"], rates["convolution"]))
    memory = moved / rates["bandwidth"]
    return {"compute": compute, "memory": memory, "seconds": max(compute, memory)}
