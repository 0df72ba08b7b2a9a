"""Laws of variance and decoder: the bound at the exact denoiser is above the entropy, and near it.

The data are discrete, so that their entropy and their exact denoiser are known. Their squared error
E|x0 - E[x0 | x_t]|^2 depends on the log-SNR alone and is computed once, by quadrature.
"""

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffusion_jax.certification.law import FAILS, HOLDS, WARNS, Law, at_least, at_most, unjudged
from diffusion_jax.certification.subject import Subject
from diffusion_jax.configuration.tables import chosen
from diffusion_jax.core.bound import prior_nats, reconstruction_nats
from diffusion_jax.core.predictions import Denoised
from diffusion_jax.core.process import ReverseProcess, reverse_process
from diffusion_jax.truth import exact

BITS = 1.0 / math.log(2.0)
CONVERGED = 1e-3  # nats; smaller changes are not judged
LOOSE = 0.1  # bits/dim that a decoder may cost


def laws(subject: Subject) -> Iterator[Law]:
    """Yield the laws of variance and decoder."""
    name, decoder = subject.name("variance"), subject.name("decoder")
    yield from _range(subject, name)
    error, first = ErrorCurve.of(subject), FirstStep.of(subject)
    whole = expected_bound(subject, error, first)
    gap = (whole.total - subject.entropy) * BITS
    note = f"{whole.total * BITS:.4f} bits/dim, entropy {subject.entropy * BITS:.4f}"
    yield at_least(name, "the bound is above the entropy, in bits/dim", gap, -1e-3, note)
    cost = (whole.reconstruction - _best_reconstruction(subject, first)) * BITS
    verdict = HOLDS if cost <= LOOSE else WARNS
    note = "" if cost <= LOOSE else "the bound stays a bound, but a loose one"
    statement = "bits/dim that it costs beside the best variance"
    yield Law(decoder, statement, f"{cost:.3g}", f"<= {LOOSE:.3g}", verdict, note)
    yield _rate(subject, name, error)


def _range(subject: Subject, name: str) -> Iterator[Law]:
    """Compare the variance with the posterior's and the forward step's, between which it lies."""
    row, log_var = subject.reverse.moves, subject.reverse.log_var
    some = np.flatnonzero((row.s >= 0) & (row.posterior_var > 0.0))
    if not len(some):
        return
    low = np.log(row.posterior_var[some])
    high = np.log(row.forward_var[some])
    reach = np.abs(log_var.span[some])
    below = low - (log_var.offset[some] + reach)
    above = (log_var.offset[some] - reach) - high
    for side, excess in (
        ("below the posterior variance", below),
        ("above the forward variance", above),
    ):
        worst = int(np.argmax(excess))
        yield at_most(
            name,
            f"no log-variance is {side}: by",
            float(max(excess[worst], 0.0)),
            1e-6,
            f"t = {some[worst]}" if excess[worst] > 1e-6 else "",
        )


class ErrorCurve(NamedTuple):
    """The squared error of the exact denoiser by log-SNR, both ascending."""

    log_snr: np.ndarray
    error: np.ndarray

    @classmethod
    def of(cls, subject: Subject) -> "ErrorCurve":
        """Compute it by quadrature over x_t / signal, on the levels that the schedule covers."""
        finite = subject.schedule.log_snr[np.isfinite(subject.schedule.log_snr)]
        grid = np.linspace(finite[-1] - 1.0, finite[0] + 1.0, 160)
        return cls(grid, np.array([_squared_error(subject, each) for each in grid]))

    def at(self, log_snr: np.ndarray) -> np.ndarray:
        """Return the error at other log-SNRs."""
        return np.interp(log_snr, self.log_snr, self.error)


def _squared_error(subject: Subject, log_snr: float) -> float:
    p, x0 = subject.probability, subject.values
    sigma = np.exp(-0.5 * log_snr)  # noise on an unscaled signal
    nodes, weights = np.polynomial.hermite_e.hermegauss(40)
    x = x0[:, None] + sigma * nodes  # [levels, nodes]
    log_joint = np.log(np.maximum(p, 1e-300)) - 0.5 * np.square((x[..., None] - x0) / sigma)
    share = np.exp(log_joint - log_joint.max(axis=-1, keepdims=True))
    share /= share.sum(axis=-1, keepdims=True)
    error = np.square(share @ x0 - x0[:, None]) @ (weights / weights.sum())
    return float(p @ error)


class Expected(NamedTuple):
    """The expected bound at the exact denoiser, in nats: its three parts."""

    prior: float
    diffusion: float
    reconstruction: float

    @property
    def total(self) -> float:
        """The bound."""
        return self.prior + self.diffusion + self.reconstruction


def expected_bound(subject: Subject, error: ErrorCurve, first: "FirstStep") -> Expected:
    """Compute the expected bound; a learned variance is taken at its best."""
    x0 = jnp.asarray(subject.values, jnp.float32).reshape(-1, 1, 1, 1)
    prior = np.asarray(prior_nats(subject.schedule, x0), np.float64)
    return Expected(
        float(subject.probability @ prior),
        _diffusion(subject.reverse, error),
        _reconstruction(subject, first, subject.reverse.log_var.offset[0]),
    )


def _diffusion(reverse: ReverseProcess, error: ErrorCurve) -> float:
    row, log_var = reverse.moves, reverse.log_var
    some = row.s >= 0
    distance = np.square(row.x0_weight[some]) * error.at(row.start.log_snr[some])
    best = np.log(row.posterior_var[some] + distance)
    chosen_log_var = np.where(log_var.span[some] != 0.0, best, log_var.offset[some])
    ratio = chosen_log_var - np.log(row.posterior_var[some])
    nats = 0.5 * (np.expm1(-ratio) + ratio) + 0.5 * distance * np.exp(-chosen_log_var)
    return float(nats.sum())


class FirstStep(NamedTuple):
    """Images noised to t = 0 by the nodes of a quadrature, denoised exactly.

    weight: of each in an expectation over data and noise.
    """

    x0: jax.Array
    denoised: Denoised
    weight: np.ndarray

    @classmethod
    def of(cls, subject: Subject) -> "FirstStep":
        """Denoise all levels that occur."""
        nodes, weights = np.polynomial.hermite_e.hermegauss(24)
        some = subject.probability > 1e-12
        x0, eps = (
            jnp.asarray(each.reshape(-1, 1), jnp.float32)
            for each in np.meshgrid(subject.values[some], nodes, indexing="ij")
        )
        schedule, t = subject.schedule, jnp.zeros(len(x0), jnp.int32)
        xt = schedule.signal[0] * x0 + schedule.noise[0] * eps
        found = exact.denoiser(schedule, subject.points)(jnp.asarray(xt), t)
        shape = (-1, 1, 1, 1)
        denoised = Denoised(found.x0.reshape(shape), found.eps.reshape(shape))
        weight = np.outer(subject.probability[some], weights / weights.sum()).ravel()
        return cls(x0.reshape(shape), denoised, weight)


def _reconstruction(subject: Subject, first: FirstStep, log_var: float) -> float:
    """Compute the expected reconstruction term under a decoder of this log-variance."""
    reverse, t = subject.reverse, jnp.zeros(len(first.x0), jnp.int32)
    offset = np.append(log_var, reverse.log_var.offset[1:])
    decoder = replace(reverse, log_var=reverse.log_var._replace(offset=offset))
    nats = reconstruction_nats(decoder, first.denoised, first.x0, t, subject.levels)
    return float(first.weight @ np.asarray(nats, np.float64))


def _best_reconstruction(subject: Subject, first: FirstStep) -> float:
    """Return the least reconstruction term over variances of the decoder."""
    around = subject.reverse.log_var.offset[0] + np.linspace(-8.0, 8.0, 33)
    return min(_reconstruction(subject, first, each) for each in around)


def _rate(subject: Subject, name: str, error: ErrorCurve) -> Law:
    """Judge whether the diffusion terms approach their limit like 1/T, on parts of the steps."""
    statement = "with twice the steps, the bound comes twice as near its limit: ratio"
    most = subject.schedule.steps
    if np.any(subject.reverse.log_var.span):
        return unjudged(name, statement, "a learned variance can be at its best for every T")
    if most < 64:
        return unjudged(name, statement, f"{most} steps are too few")
    sums = [_on_part(subject, most // each, error) for each in (4, 2, 1)]
    if abs(sums[1] - sums[2]) < CONVERGED:
        note = f"twice the steps change it by {abs(sums[1] - sums[2]) * BITS:.1g} bits/dim"
        return Law(name, statement, "-", "1.3 to 4", HOLDS, note)
    nearer = (sums[0] - sums[1]) / (sums[1] - sums[2])
    within = 1.3 <= nearer <= 4.0
    note = "" if within else "the variance does not tend to the posterior's as steps shrink"
    return Law(name, statement, f"{nearer:.3g}", "1.3 to 4", HOLDS if within else FAILS, note)


def _on_part(subject: Subject, count: int, error: ErrorCurve) -> float:
    t = np.rint(np.linspace(0, subject.schedule.steps - 1, count)).astype(int)
    part = subject.schedule.take(t)
    return _diffusion(reverse_process(part, chosen(subject.config, "variance")), error)
