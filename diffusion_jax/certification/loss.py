"""Laws of the loss: its minimum is the exact denoiser, and it weighs errors as it says.

Everything is computed in float64 on 1-D data.
"""

import math
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import log_ndtr

from diffusion_jax.certification.law import HOLDS, WARNS, Law, at_most, unjudged
from diffusion_jax.certification.subject import Subject
from diffusion_jax.truth import exact

ERROR = 0.05  # of x0, by which outputs are perturbed
NEAR = 0.05  # relative; losses whose weights are this near to the bound's mean to be the bound
EQUAL = 1e-4  # relative; how near they must be


def laws(subject: Subject) -> Iterator[Law]:
    """Yield the laws of loss and weight."""
    name = subject.name("loss")
    with jax.enable_x64(True):
        yield _stationary(subject, name)
        implied = implied_weights(subject)
    yield from _kind(subject, name, implied)
    yield _of_eps(subject)


def _output(subject: Subject, prediction: jax.Array) -> jax.Array:
    """Append a variance output of 0 where the variance is learned."""
    if not np.any(subject.reverse.log_var.span):
        return prediction
    return jnp.concatenate([prediction, jnp.zeros_like(prediction)], axis=-1)


def _losses(subject: Subject, prediction, x0, eps, t) -> jax.Array:
    return subject.loss(subject.model, _output(subject, prediction), x0, eps, t)


def _stationary(subject: Subject, name: str) -> Law:
    """Judge whether the loss's gradient vanishes, on average, at the exact denoiser."""
    steps, count = subject.schedule.steps, 4096
    statement = "its gradient vanishes at the exact denoiser: largest mean, in standard errors"
    some = np.unique(np.rint(np.linspace(1, steps - 1, 12)).astype(int)) if steps > 1 else []
    if not len(some):
        return unjudged(name, statement, "there is no step but the decoder's")
    denoise = exact.denoiser(subject.schedule, subject.points)
    worst, where = 0.0, 0
    for step in some:
        keys = jax.random.split(jax.random.key(step), 2)
        x0 = jax.random.choice(
            keys[0], jnp.asarray(subject.values), (count, 1), p=jnp.asarray(subject.probability)
        )
        eps = jax.random.normal(keys[1], (count, 1))
        t = jnp.full(count, step)
        xt = subject.schedule.signal[step] * x0 + subject.schedule.noise[step] * eps
        found = denoise(jnp.asarray(xt), t)
        shape = (count, 1, 1, 1)
        best = subject.meaning.target(found.x0.reshape(shape), found.eps.reshape(shape), t)

        slope = _slope(subject, best, x0.reshape(shape), eps.reshape(shape), t)
        for factor in (np.ones(count), np.asarray(xt).reshape(-1)):
            each = slope * factor
            error = each.std() / math.sqrt(count)
            deviation = abs(each.mean()) / error if error > 0.0 else 0.0
            if not deviation <= worst:
                worst, where = deviation, int(step)
    return at_most(name, statement, worst, 5.0, f"t = {where}")


def _slope(subject: Subject, prediction, x0, eps, t) -> np.ndarray:
    """Return the loss's derivative by the prediction, `[b]`."""

    def total(prediction: jax.Array) -> jax.Array:
        return jnp.sum(_losses(subject, prediction, x0, eps, t))

    return np.asarray(jax.grad(total)(prediction)).reshape(-1)


def implied_weights(subject: Subject) -> np.ndarray:
    """Return the weight of x0's squared error by which the loss trains, `[T]`.

    (L'(y + h) - L'(y - h)) / 2 = 2 w h, where h changes x0 by `ERROR`. It follows the gradient,
    which may be stopped in a part of the loss.
    """
    schedule, meaning = subject.schedule, subject.meaning
    t = jnp.arange(schedule.steps)
    shape = (schedule.steps, 1, 1, 1)
    x0 = jnp.full(shape, subject.values[subject.levels // 2])
    eps = jnp.zeros(shape)
    y = meaning.target(x0, eps, t)
    change = jnp.asarray(ERROR * meaning.d / schedule.noise).reshape(shape)
    up, down = (_slope(subject, y + sign * change, x0, eps, t) for sign in (1.0, -1.0))
    of_y = 0.25 * (up - down) / np.asarray(change).reshape(-1)
    return of_y * np.square(meaning.d / schedule.noise)


def bound_bits(subject: Subject, x0: float, error: float) -> np.ndarray:
    """Return T times each term of the bound in bits/dim, if x0 is off by `error`, `[T]`."""
    row, log_var = subject.reverse.moves, subject.reverse.log_var.offset
    posterior = np.where(row.s < 0, 1.0, row.posterior_var)
    ratio = log_var - np.log(posterior)
    nats = 0.5 * (np.expm1(-ratio) + ratio)
    nats = nats + 0.5 * np.square(row.x0_weight * error) * np.exp(-log_var)
    nats[0] = -_log_bin(subject, x0, x0 + error, np.exp(0.5 * log_var[0]))
    return subject.schedule.steps * nats / math.log(2.0)


def _log_bin(subject: Subject, x0: float, mean: float, std: float) -> float:
    """Return log P of x0's bin under N(mean, std^2), for a level that is not the first or last."""
    half = 1.0 / (subject.levels - 1)
    low, high = (x0 - half - mean) / std, (x0 + half - mean) / std
    if low + high > 0.0:
        low, high = -high, -low
    upper, lower = float(log_ndtr(high)), float(log_ndtr(low))
    return upper + math.log(-math.expm1(lower - upper))


def _kind(subject: Subject, name: str, implied: np.ndarray) -> Iterator[Law]:
    """Judge what the loss is: the weighted squared error, or the bound, or something else."""
    after = slice(1, None)
    of_bound = _bound_weights(subject)
    near_bound = _median(implied[after] / of_bound[after])
    scale = np.median(implied[after] / subject.weight[after]) if len(implied) > 1 else 1.0
    near_weighted = _median(implied / subject.weight / scale)
    if near_bound <= NEAR and subject.config.loss != "weighted":
        yield from _is_bound(subject, name)
    elif near_weighted <= NEAR:
        off = np.abs(implied / subject.weight / scale - 1.0)
        note = f"worst at t = {int(np.argmax(off))}"
        statement = f"its weights are those of '{subject.config.weight}' at every step"
        yield at_most(name, statement, float(off.max()), 1e-3, note)
    else:
        why = "it is neither the weighted squared error nor near the bound"
        yield unjudged(name, "it is a known objective", why)


def _median(ratio: np.ndarray) -> float:
    return float(np.median(np.abs(ratio - 1.0))) if len(ratio) else math.inf


def _bound_weights(subject: Subject) -> np.ndarray:
    x0 = subject.values[subject.levels // 2]
    high, middle, low = (bound_bits(subject, x0, each) for each in (ERROR, 0.0, -ERROR))
    return 0.5 * (high + low - 2.0 * middle) / ERROR**2


def _is_bound(subject: Subject, name: str) -> Iterator[Law]:
    """Compare the loss with T times the bound's terms, at outputs that are off by a little."""
    x0, schedule, meaning = subject.values[subject.levels // 2], subject.schedule, subject.meaning
    shape = (schedule.steps, 1, 1, 1)
    t = jnp.arange(schedule.steps)
    worst, where, there = 0.0, 0, 0.0
    with jax.enable_x64(True):
        for error in (0.0, ERROR, 1.0 / (subject.levels - 1)):
            image, eps = jnp.full(shape, x0), jnp.zeros(shape)
            change = jnp.asarray(error * meaning.d / schedule.noise).reshape(shape)
            # A change of y moves x0 the other way, as x0 = (b x_t - noise y) / d.
            y = meaning.target(image, eps, t) - change
            found = np.asarray(_losses(subject, y, image, eps, t))
            wanted = bound_bits(subject, x0, error)
            off = np.abs(found - wanted) / (np.abs(wanted) + 1e-3 * schedule.steps)
            if not off.max() <= worst:
                where = int(np.nanargmax(off))
                worst, there = float(off[where]), float(found[where] - wanted[where])
    note = f"worst at t = {where}: {there / schedule.steps:+.3g} bits/dim"
    yield at_most(name, "it is the bound, term by term: relative error", worst, EQUAL, note)


def _of_eps(subject: Subject) -> Law:
    """Warn of a weight on the error of eps that grows with the SNR."""
    name, statement = subject.name("weight"), "its weight on eps's error does not grow with the SNR"
    log_snr = subject.schedule.log_snr
    some = np.flatnonzero(np.isfinite(log_snr) & (np.arange(len(log_snr)) > 0))
    if len(some):  # the upper third of the range of log-SNR
        high, low = log_snr[some].max(), log_snr[some].min()
        some = some[log_snr[some] > high - (high - low) / 3.0]
    if len(some) < 4:
        return unjudged(name, statement, "the schedule has too few steps")
    of_eps = np.log(np.maximum(subject.weight[some], 1e-300)) - log_snr[some]
    slope = np.polyfit(log_snr[some], of_eps, 1)[0]
    verdict = HOLDS if slope <= 0.5 else WARNS
    note = "" if slope <= 0.5 else "it grows without bound where min-SNR's falls: inverted?"
    return Law(name, f"{statement}: exponent", f"{slope:.3g}", "<= 0.5", verdict, note)
