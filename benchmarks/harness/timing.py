"""Rounds of calls in turn, what the device can do at most, and the floor under a program's time."""

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Call = Callable[[], dict[str, Any]]
Rounds = list[dict[str, dict[str, Any]]]


def timed(action: Callable[[], Any]) -> dict[str, float]:
    """Seconds of one call, its result waited for, and the processor's seconds of this process."""
    began, busy = time.perf_counter(), time.process_time()
    jax.block_until_ready(action())
    return {"seconds": time.perf_counter() - began, "cpu_seconds": time.process_time() - busy}


def in_turn(calls: dict[str, Call], rounds: int, warm: bool = True) -> Rounds:
    """Rounds of all calls one after the other, after one of each that is not counted.

    A machine whose speed changes changes it for all of them.

    Args:
        warm: whether there is one that is not counted.
    """
    for call in calls.values() if warm else ():
        call()
    return [{name: call() for name, call in calls.items()} for _ in range(rounds)]


def median(rounds: Rounds, name: str, key: str = "seconds") -> float:
    """Over the rounds, of one call."""
    return float(np.median([each[name][key] for each in rounds]))


def ratio(rounds: Rounds, above: str, below: str, key: str = "seconds") -> float:
    """The median over the rounds of one call's seconds over another's in the same round."""
    return float(np.median([each[above][key] / each[below][key] for each in rounds]))


def overheads(rounds: Rounds, whole: str) -> dict[str, float]:
    """What `whole` and, as "own", a network that costs nothing take beside bare network calls."""
    return {
        "overhead": ratio(rounds, whole, "network") - 1.0,
        "own_over_network": ratio(rounds, "own", "network"),
    }


class Ceilings:
    """What one device does at most: products, 3x3 convolutions, traffic with its memory."""

    def __init__(self, dtype: str):
        small = jax.default_backend() == "cpu"
        # Large enough that nothing but the work counts, and what is moved fits in no cache.
        side, images, channels = (2048, 16, 128) if small else (8192, 128, 256)
        self._repeats = 1 if small else 10
        # Of random numbers: a chip that multiplies ones needs less power, and is faster.
        draw = np.random.default_rng(0).standard_normal
        self._square, self._images, self._kernel = (
            jnp.asarray(draw(shape, np.float32), dtype)
            for shape in ((side, side), (images, 32, 32, channels), (3, 3, channels, channels))
        )
        self._long = jnp.zeros(2**27 if small else 2**29, jnp.float32)
        self._matmul = jax.jit(jnp.matmul)
        self._convolve = jax.jit(_convolve)
        self._add = jax.jit(lambda a: a + 1, donate_argnums=0)
        self._amounts = {
            "matmul": 2 * side**3,
            "convolution": 2 * 9 * channels**2 * self._images[..., 0].size,
            "bandwidth": 2 * self._long.nbytes,
        }
        for call in self.calls.values():
            call()  # compiles

    @property
    def calls(self) -> dict[str, Call]:
        """To be taken in turn with what is measured."""
        return {
            "matmul": lambda: timed(lambda: self._repeat(self._matmul, self._square, self._square)),
            "convolution": lambda: timed(
                lambda: self._repeat(self._convolve, self._images, self._kernel)
            ),
            "bandwidth": lambda: timed(self._read_and_write),
        }

    def _repeat(self, function: Callable, *arguments) -> list:
        return [function(*arguments) for _ in range(self._repeats)]

    def _read_and_write(self) -> jax.Array:
        for _ in range(self._repeats):
            self._long = self._add(self._long)
        return self._long

    def rates(self, rounds: Rounds) -> dict[str, float]:
        """Operations/s of products and convolutions, bytes/s of memory; medians."""
        return {
            name: self._repeats * amount / median(rounds, name)
            for name, amount in self._amounts.items()
        }


def _convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def least_bytes(compiled: Any) -> int:
    """What a compiled program has to move on each device: inputs, outputs, temporaries.

    A temporary is written and read; the program may move it more often. Where temporaries fit into
    a cache the device's memory sees less than this.
    """
    used = compiled.memory_analysis()
    ends = used.argument_size_in_bytes + used.output_size_in_bytes
    return ends + 2 * used.temp_size_in_bytes


def floor(flops: float, moved: float, rates: dict[str, float], count: int) -> dict[str, float]:
    """Seconds that `count` devices need at least for these operations and each device's bytes."""
    compute = flops / (count * max(rates["matmul"], rates["convolution"]))
    memory = moved / rates["bandwidth"]
    return {"compute": compute, "memory": memory, "seconds": max(compute, memory)}
