"""Paths of noise levels: signal and noise as functions of the log-SNR."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class Path(NamedTuple):
    """Signal and noise as functions of the log-SNR l, in float64.

    levels: `(l) -> (signal, noise)`, with log(signal^2 / noise^2) = l.
    drift: `(l) -> d log(signal) / dl`.
    """

    levels: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
    drift: Callable[[np.ndarray], np.ndarray]


def _root_of_sigmoid(log_snr: np.ndarray) -> np.ndarray:
    return np.exp(-0.5 * np.logaddexp(0.0, -log_snr))


# signal^2 = sigmoid(l) = 1 - noise^2: unit variance stays unit variance (Ho et al. 2020).
VARIANCE_PRESERVING = Path(
    lambda log_snr: (_root_of_sigmoid(log_snr), _root_of_sigmoid(-log_snr)),
    lambda log_snr: 0.5 * np.square(_root_of_sigmoid(-log_snr)),
)
# signal = 1: noise is added and the signal is not scaled down (Song & Ermon 2019).
VARIANCE_EXPLODING = Path(
    lambda log_snr: (np.ones_like(log_snr), np.exp(-0.5 * log_snr)),
    np.zeros_like,
)
