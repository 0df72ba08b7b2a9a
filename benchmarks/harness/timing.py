"""Time calls in turn, so that a machine whose speed changes does so for all of them."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np

Call = Callable[[], dict[str, Any]]
Rounds = list[dict[str, dict[str, Any]]]


def timed(action: Callable[[], Any]) -> dict[str, float]:
    """Return the wall and processor seconds of one call, waiting for its result."""
    began, busy = time.perf_counter(), time.process_time()
    jax.block_until_ready(action())
    return {"seconds": time.perf_counter() - began, "cpu_seconds": time.process_time() - busy}


def each_timed(actions: dict[str, Callable[[], Any]]) -> dict[str, Call]:
    """Turn actions into calls for `in_turn`."""
    return {name: partial(timed, action) for name, action in actions.items()}


def in_turn(calls: dict[str, Call], rounds: int, warm: bool = True) -> Rounds:
    """Run rounds of all calls, one after another.

    Args:
        warm: run each call once before, uncounted.
    """
    for call in calls.values() if warm else ():
        call()
    return [{name: call() for name, call in calls.items()} for _ in range(rounds)]


def median(rounds: Rounds, name: str, key: str = "seconds") -> float:
    """Return the median of one call over the rounds."""
    return float(np.median([each[name][key] for each in rounds]))


def medians(rounds: Rounds, key: str = "seconds") -> dict[str, float]:
    """Return the median of every call over the rounds."""
    return {name: median(rounds, name, key) for name in rounds[0]}


def ratio(rounds: Rounds, above: str, below: str, key: str = "seconds") -> float:
    """Return the median over the rounds of one call divided by another in the same round."""
    return float(np.median([each[above][key] / each[below][key] for each in rounds]))


def overheads(rounds: Rounds, whole: str) -> dict[str, float]:
    """Compare `whole`, and `own` (a network that costs nothing), with the bare `network` calls."""
    return {
        "overhead": ratio(rounds, whole, "network") - 1.0,
        "own_over_network": ratio(rounds, "own", "network"),
    }
