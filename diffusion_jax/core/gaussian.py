"""Gaussians: densities, divergences, entropies and the likelihood of discrete data, all in nats."""

import math

import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular
from jax.scipy.special import log_ndtr

LOG_2PI = math.log(2.0 * math.pi)


def log_density(x: jax.Array, mean: jax.Array, log_var: jax.Array) -> jax.Array:
    """Compute the log-density of N(mean, exp(log_var)) per dimension.

    log N(x) = -(log 2 pi + log_var + (x - mean)^2 exp(-log_var)) / 2
    """
    return -0.5 * (LOG_2PI + log_var + jnp.square(x - mean) * jnp.exp(-log_var))


def kl_of_variances(d: jax.Array) -> jax.Array:
    """Compute the KL of Gaussians with equal means: (exp(-d) - 1 + d) / 2.

    d = log_var_p - log_var_q. Near zero, where the three terms cancel, a series is used.
    """
    small = jnp.where(jnp.abs(d) < 0.1, d, 0.0)
    series = jnp.ones_like(small)
    for n in range(9, 2, -1):
        series = 1.0 - small / n * series
    return 0.5 * jnp.where(jnp.abs(d) < 0.1, 0.5 * jnp.square(small) * series, jnp.expm1(-d) + d)


def kl(mean_q, log_var_q, mean_p, log_var_p) -> jax.Array:
    """Compute KL(q || p) of two diagonal Gaussians per dimension.

    KL = (exp(-d) - 1 + d + (mean_q - mean_p)^2 exp(-log_var_p)) / 2,  d = log_var_p - log_var_q
    """
    shift = jnp.square(mean_q - mean_p) * jnp.exp(-log_var_p)
    return kl_of_variances(log_var_p - log_var_q) + 0.5 * shift


def kl_full(mean_q, cov_q, mean_p, cov_p) -> jax.Array:
    """Compute KL(q || p) of two Gaussians with full covariances.

    KL = (log(det P / det Q) + tr(P^-1 Q) + (mean_q - mean_p)^T P^-1 (mean_q - mean_p) - D) / 2

    Args:
        mean_q, mean_p: `[D]`.
        cov_q, cov_p: `[D, D]`, symmetric and positive definite (otherwise the result is NaN).
    """
    root_q, root_p = jnp.linalg.cholesky(cov_q), jnp.linalg.cholesky(cov_p)
    trace = jnp.sum(jnp.square(solve_triangular(root_p, root_q, lower=True)))
    shift = jnp.sum(jnp.square(solve_triangular(root_p, mean_q - mean_p, lower=True)))
    log_det = 2.0 * jnp.sum(jnp.log(jnp.diag(root_p)) - jnp.log(jnp.diag(root_q)))
    return 0.5 * (log_det + trace + shift - mean_q.shape[-1])


def entropy(log_var: jax.Array) -> jax.Array:
    """Compute the differential entropy of a Gaussian per dimension: (log 2 pi e + log_var) / 2."""
    return 0.5 * (LOG_2PI + 1.0 + log_var)


def cross_entropy(mean_q, log_var_q, mean_p, log_var_p) -> jax.Array:
    """Compute the cross-entropy -E_q log p = H(q) + KL(q || p) of two Gaussians per dimension.

    CE = (log 2 pi + log_var_p + (exp(log_var_q) + (mean_q - mean_p)^2) exp(-log_var_p)) / 2
    """
    shift = jnp.square(mean_q - mean_p) * jnp.exp(-log_var_p)
    return 0.5 * (LOG_2PI + log_var_p + jnp.exp(log_var_q - log_var_p) + shift)


def discretised_log_likelihood(level, mean, log_var, levels: int) -> jax.Array:
    """Compute the log-probability of a level's bin under N(mean, exp(log_var)), per dimension.

    Level k of L stands for x = 2 k / (L - 1) - 1; its bin reaches half-way to its neighbours, and
    the outermost bins reach to infinity, so the L probabilities sum to one
    (Ho et al. 2020, eq. 13). The edges are computed from integers, so neighbouring bins share the
    same value.

    Args:
        level: integers in `0 .. levels - 1`.
        mean, log_var: the Gaussian, broadcastable with `level`.
        levels: how many levels the data has (256 for 8-bit images).
    """
    std = jnp.exp(0.5 * jnp.asarray(log_var))
    lower = (_lower_edge(level, levels) - mean) / std
    upper = (_lower_edge(level + 1, levels) - mean) / std
    inside = _log_ndtr_difference(lower, upper)
    ends = jnp.where(level == 0, log_ndtr(upper), log_ndtr(-lower))
    return jnp.where((level == 0) | (level == levels - 1), ends, inside)


def _lower_edge(level, levels: int) -> jax.Array:
    return (2.0 * level - 1.0) / (levels - 1.0) - 1.0


def _log_ndtr_difference(lower, upper) -> jax.Array:
    """Compute log(Phi(upper) - Phi(lower)) in the lower tail, where Phi keeps its precision."""
    flip = lower + upper > 0.0
    lower, upper = jnp.where(flip, -upper, lower), jnp.where(flip, -lower, upper)
    log_lower, log_upper = log_ndtr(lower), log_ndtr(upper)
    gap = jnp.maximum(log_upper - log_lower, jnp.finfo(log_upper.dtype).tiny)
    return log_upper + jnp.log(-jnp.expm1(-gap))


def bits_per_dim(nats: jax.Array, dims: int) -> jax.Array:
    """Convert nats per image to bits per dimension: nats / (dims log 2)."""
    return nats / (dims * math.log(2.0))
