"""Entropy, cross-entropy and KL of discrete distributions, in nats: probabilities on the last axis.

cross_entropy = entropy + kl, for these as for the Gaussians of `core.gaussian`.
"""

import jax
import jax.numpy as jnp


def _weighted_log(p: jax.Array, q: jax.Array) -> jax.Array:
    """Compute p log q, 0 where p is 0."""
    return jnp.where(p > 0.0, p * jnp.log(jnp.where(p > 0.0, q, 1.0)), 0.0)


def entropy(p: jax.Array) -> jax.Array:
    """Compute H(p) = -sum p log p."""
    return -jnp.sum(_weighted_log(p, p), axis=-1)


def cross_entropy(p: jax.Array, q: jax.Array) -> jax.Array:
    """Compute -sum p log q; infinite where p has mass and q has none."""
    return -jnp.sum(_weighted_log(p, q), axis=-1)


def kl(p: jax.Array, q: jax.Array) -> jax.Array:
    """Compute KL(p || q) = sum p log(p / q); infinite where p has mass and q has none."""
    return jnp.sum(_weighted_log(p, p) - _weighted_log(p, q), axis=-1)


def bernoulli(p: jax.Array) -> jax.Array:
    """Return the probabilities (1 - p, p) of a Bernoulli variable, `[..., 2]`."""
    return jnp.stack([1.0 - p, p], axis=-1)
