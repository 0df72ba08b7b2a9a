"""Ground truth: Gaussians and mixtures of them, for which every density of diffusion is known.

Data are vectors: the last axis of an array. All axes before it are independent draws, so that a
1-D density serves as an image of independent pixels.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp

from diffusion_jax.core.arrays import lookup
from diffusion_jax.core.gaussian import LOG_2PI
from diffusion_jax.core.moves import moves
from diffusion_jax.core.predictions import Denoise, Denoised
from diffusion_jax.core.process import ReverseProcess
from diffusion_jax.core.schedules import Schedule


class Mixture(NamedTuple):
    """sum_k exp(log_weight_k) N(mean_k, axes_k diag(var_k) axes_k^T), k = 1 .. K.

    log_weight: `[..., K]`; mean: `[..., K, D]`; axes: `[K, D, D]`, with orthonormal columns;
    var: `[..., K, D]`, the variances along these columns. Leading axes, if any, are those of the
    points that the mixture is conditioned on.
    """

    log_weight: np.ndarray | jax.Array
    mean: np.ndarray | jax.Array
    var: np.ndarray | jax.Array
    axes: np.ndarray | jax.Array


def mixture(weights, means, covs) -> Mixture:
    """Build a mixture of weights `[K]`, means `[K, D]`, covariances `[K, D, D]`, in float64."""
    var, axes = np.linalg.eigh(np.asarray(covs, np.float64))
    weights = np.asarray(weights, np.float64)
    return Mixture(
        np.log(weights / weights.sum()), np.asarray(means, np.float64), np.maximum(var, 0.0), axes
    )


def gaussian(mean, cov) -> Mixture:
    """Build N(mean, cov), a mixture of one component; two numbers make a 1-D density."""
    mean, cov = np.atleast_1d(mean), np.atleast_2d(cov)
    return mixture([1.0], mean[None], cov[None])


def _along_axes(data: Mixture, vectors: jax.Array) -> jax.Array:
    """Express vectors `[..., K, D]` in the coordinates of each component's axes."""
    return jnp.einsum("...kd,kde->...ke", vectors, jnp.asarray(data.axes, vectors.dtype))


def _from_axes(data: Mixture, coordinates: jax.Array) -> jax.Array:
    """Invert `_along_axes`."""
    return jnp.einsum("...ke,kde->...kd", coordinates, jnp.asarray(data.axes, coordinates.dtype))


class _At(NamedTuple):
    """x_t relative to each component.

    log_joint: log(weight * density), [..., K].
    rest: (x_t - signal mean) / (signal^2 var + noise^2), along the axes, [..., K, D].
    """

    log_joint: jax.Array
    rest: jax.Array


def _components(data: Mixture, signal, noise, xt: jax.Array) -> _At:
    """Evaluate each component at x_t; signal and noise broadcast with `[..., K, D]`."""
    kind = xt.dtype
    mean, var = jnp.asarray(data.mean, kind), jnp.asarray(data.var, kind)
    total = jnp.square(signal) * var + jnp.square(noise)
    off = _along_axes(data, xt[..., None, :] - signal * mean)
    square = jnp.sum(jnp.square(off) / total + jnp.log(total), axis=-1)
    log_density = -0.5 * (square + LOG_2PI * xt.shape[-1])
    return _At(jnp.asarray(data.log_weight, kind) + log_density, off / total)


def log_density(data: Mixture, x: jax.Array) -> jax.Array:
    """Compute log q(x) per vector: `[..., D]` -> `[...]`."""
    return logsumexp(_components(data, 1.0, 0.0, jnp.asarray(x)).log_joint, axis=-1)


def sample(data: Mixture, key: jax.Array, count: int) -> jax.Array:
    """Draw independent samples `[count, D]`."""
    which, normal = jax.random.split(key)
    k = jax.random.categorical(which, jnp.asarray(data.log_weight), shape=(count,))
    eps = jax.random.normal(normal, (count, data.mean.shape[-1]))
    spread = jnp.einsum("nde,ne->nd", jnp.asarray(data.axes)[k], jnp.sqrt(data.var)[k] * eps)
    return jnp.asarray(data.mean)[k] + spread


def marginal(data: Mixture, schedule: Schedule, t: int) -> Mixture:
    """Return q(x_t) = sum_k w_k N(signal m_k, signal^2 C_k + noise^2 I)."""
    signal, noise = schedule.signal[t], schedule.noise[t]
    return data._replace(mean=signal * data.mean, var=signal**2 * data.var + noise**2)


def score(data: Mixture, x: jax.Array) -> jax.Array:
    """Compute grad log q(x) = -sum_k r_k(x) C_k^-1 (x - m_k), with the responsibilities r_k."""
    log_joint, rest = _components(data, 1.0, 0.0, x)
    share = jax.nn.softmax(log_joint, axis=-1)[..., None]
    return -jnp.sum(share * _from_axes(data, rest), axis=-2)


def denoiser(schedule: Schedule, data: Mixture) -> Denoise:
    """Return the optimal denoiser, E[x0 | x_t] and E[eps | x_t], for use in place of a network.

    E[x0 | x_t] = sum_k r_k (m_k + signal C_k rest_k), E[eps | x_t] = sum_k r_k noise rest_k,
    rest_k = (signal^2 C_k + noise^2 I)^-1 (x_t - signal m_k).
    """

    def denoise(x: jax.Array, t: jax.Array) -> Denoised:
        signal, noise = (
            lookup(table, t, x)[..., None] for table in (schedule.signal, schedule.noise)
        )
        log_joint, rest = _components(data, signal, noise, x)
        share = jax.nn.softmax(log_joint, axis=-1)[..., None]
        mean, var = jnp.asarray(data.mean, x.dtype), jnp.asarray(data.var, x.dtype)
        means = mean + signal * _from_axes(data, var * rest)
        eps = noise * _from_axes(data, rest)
        return Denoised(*(jnp.sum(share * each, axis=-2) for each in (means, eps)))

    return denoise


def reverse_step(data: Mixture, schedule: Schedule, t: int, xt: jax.Array) -> Mixture:
    """Return q(x_{t-1} | x_t), t >= 1, which is again a mixture, one for each x_t `[..., D]`.

    N(x0_weight E_k[x0 | x_t] + xt_weight x_t, posterior_var I + x0_weight^2 Cov_k[x0 | x_t]),
    weighted by r_k(x_t), where Cov_k[x0 | x_t] = noise^2 C_k (signal^2 C_k + noise^2 I)^-1.
    """
    row = moves(schedule, [t], [t - 1])
    signal, noise = schedule.signal[t], schedule.noise[t]
    log_joint, rest = _components(data, signal, noise, xt)
    mean, var = jnp.asarray(data.mean, xt.dtype), jnp.asarray(data.var, xt.dtype)
    x0 = mean + signal * _from_axes(data, var * rest)
    x0_var = data.var * noise**2 / (signal**2 * data.var + noise**2)
    return Mixture(
        jax.nn.log_softmax(log_joint, axis=-1),
        row.x0_weight[0] * x0 + row.xt_weight[0] * xt[..., None, :],
        row.posterior_var[0] + row.x0_weight[0] ** 2 * x0_var,
        data.axes,
    )


def affine_marginal(
    reverse: ReverseProcess, slope: np.ndarray, offset: np.ndarray
) -> tuple[float, float]:
    """Compute mean and variance of the *model's* p(x0) for x0_hat = slope x_t + offset in 1-D.

    With fixed variances every step maps a Gaussian to a Gaussian, from the prior down to the
    decoder. Computed in float64.

    Args:
        slope, offset: `[T]`.
    """
    row = reverse.moves
    mean, var = 0.0, reverse.schedule.scale[-1] ** 2
    for t in reversed(range(reverse.schedule.steps)):
        gain = row.x0_weight[t] * slope[t] + row.xt_weight[t]
        mean = gain * mean + row.x0_weight[t] * offset[t]
        var = gain**2 * var + np.exp(reverse.log_var.offset[t])
    return float(mean), float(var)
