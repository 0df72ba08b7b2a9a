"""How many operations a program asks for: products and sums of matrix products and convolutions.

Counted as the program asks for them, padding included, whatever a compiler makes of them. PyTorch's
`FlopCounterMode` counts the same way; XLA leaves padding out. Where our layers take a shorter way
to the same result (`DoubleConv`) we count fewer than a peer of the same network.
"""

from collections.abc import Callable
from math import prod
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr


def count(function: Callable, *arguments: Any) -> int:
    """Floating-point operations of one call with arguments of these shapes."""
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
    # One branch of a condition runs; programs elsewhere all do.
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
    # A strided convolution's gradient sees its input with zeros put in between.
    zeros = prod(equation.params["lhs_dilation"])
    return 2 * prod(equation.outvars[0].aval.shape) * taps // zeros
