"""DPM-Solver++: exponential integrators in half the log-SNR that reuse past predictions.

With h the move's length in half the log-SNR, the exact solution of the probability-flow ODE is

x_s = (noise_s / noise_t) x_t + signal_s int_0^h exp(u - h) x0_hat(u) du (Lu et al. 2022, eq. 9),

where a method of order k replaces x0_hat(u) by the polynomial through the last k predictions.
The move onto the data and the first moves after a jump or from pure noise use a lower order.
"""

from typing import NamedTuple

import numpy as np

from diffusion_jax.core.moves import Moves
from diffusion_jax.core.schedules import Schedule
from diffusion_jax.samplers.ancestral import single_stage
from diffusion_jax.samplers.base import Plan, Sampler, interleave
from diffusion_jax.samplers.linear import linear_sampler, table


def dpmpp_2m() -> Sampler:
    """Build the second-order solver (Lu et al. 2022, algorithm 2).

    x0_hat is extrapolated linearly to the middle of each move.
    """

    def plan(grid: Schedule, moves: Moves) -> Plan:
        past = _past(moves)
        weights = _through_two(past, -moves.end.signal * np.expm1(-past.h))
        rows = table(moves.t, moves.end.noise / moves.start.noise, weights)
        return Plan(grid, interleave([single_stage(moves, rows)]))

    return linear_sampler(plan, order=2)


def dpmpp_sde() -> Sampler:
    """Build the second-order solver of the SDE (Lu et al. 2022, app. D.3).

    x_s = (noise_s / noise_t) exp(-h) x_t + signal_s (1 - exp(-2h)) x0_line
          + noise_s sqrt(1 - exp(-2h)) eps.

    x0_line is extrapolated as in `dpmpp_2m`; moves that know only one prediction use that one, and
    are moves of ancestral sampling with the small variance.
    """

    def plan(grid: Schedule, moves: Moves) -> Plan:
        weights = _through_two(_past(moves), moves.x0_weight)
        rows = table(moves.t, moves.xt_weight, weights, np.sqrt(moves.posterior_var))
        return Plan(grid, interleave([single_stage(moves, rows)]))

    return linear_sampler(plan, order=2)


def dpmpp_3m() -> Sampler:
    """Build the third-order solver, which integrates the parabola of three predictions exactly.

    The first move knows one prediction, and its error is of second order, in proportion to the SNR
    at the noisy end. Where that is 1e-4 or less, as on most variance-preserving schedules, the
    order that is measured is 3. On variance-exploding ones, with a noise of 10, it falls from about
    3 at 20 steps to 2 beyond 200.

    Some public implementations halve the second derivative, and so are only of second order.
    """

    def plan(grid: Schedule, moves: Moves) -> Plan:
        past = _past(moves)
        h, h_1, h_2 = past.h, past.h_1, past.h_2
        zeroth, first, second = _moments(h)
        # Newton's form: f0 + f01 u + f012 u (u + h_1), where f01 = (f0 - f1) / h_1.
        line = np.where(past.known >= 2, first / h_1, 0.0)
        curve = np.where(past.known >= 3, (second + first * h_1) / (h_1 + h_2), 0.0)
        w_0 = zeroth + line + curve / h_1
        w_1 = -line - curve * (1.0 / h_1 + 1.0 / h_2)
        w_2 = curve / h_2
        signal = moves.end.signal
        weights = [signal * each for each in (w_0, w_1, w_2)]
        rows = table(moves.t, moves.end.noise / moves.start.noise, weights)
        return Plan(grid, interleave([single_stage(moves, rows)]))

    return linear_sampler(plan, order=3)


class _Past(NamedTuple):
    """Lengths in half the log-SNR of each move and of the two moves before it.

    known: how many predictions can be used: one at the start, after a jump and on the move onto
    the data. Predictions from pure noise, infinitely far back, are used on their own move only.
    Lengths that are not used are placeholders.
    """

    h: np.ndarray
    h_1: np.ndarray
    h_2: np.ndarray
    known: np.ndarray


def _past(moves: Moves) -> _Past:
    h = 0.5 * (moves.end.log_snr - moves.start.log_snr)
    follows = np.append(False, (moves.t[1:] == moves.s[:-1]) & np.isfinite(h[:-1])) & np.isfinite(h)
    twice = follows & np.append(False, follows[:-1])
    h_1 = np.where(follows, np.roll(h, 1), 1.0)
    h_2 = np.where(twice, np.roll(h, 2), 1.0)
    return _Past(h, h_1, h_2, 1 + follows + twice)


def _through_two(past: _Past, weight: np.ndarray) -> list[np.ndarray]:
    """Return the last two predictions' weights for their line at mid-move, times `weight`."""
    share = np.where(past.known >= 2, 0.5 * past.h / past.h_1, 0.0)
    return [weight * (1.0 + share), -weight * share]


def _moments(h: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Compute int_0^h exp(u - h) u^k du for k = 0, 1, 2; for infinite h, k = 1 and 2 give 0."""
    finite = np.where(np.isfinite(h), h, 0.0)
    zeroth = -np.expm1(-h)
    first = np.where(np.isfinite(h), finite + np.expm1(-finite), 0.0)
    return zeroth, first, np.where(np.isfinite(h), np.square(finite) - 2.0 * first, 0.0)
