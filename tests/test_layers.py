"""Layers computed in a faster form equal their plain one, gradients too; dropout keeps its rate."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.models.layers import (
    Attention,
    GroupNorm,
    dense,
    dropout,
    groups,
    pointwise,
)
from diffusion_jax.models.resampling import DoubleConv, conv_2x2, double

X = 1.0 + jax.random.normal(jax.random.key(0), (3, 6, 4, 24))


class PlainAttention(nn.Module):
    """Self-attention by JAX's own function, on Flax's norm."""

    heads: int

    @nn.compact
    def __call__(self, x):
        c = x.shape[-1]
        h = nn.GroupNorm(groups(c), name="norm")(x).reshape(len(x), -1, c)
        q, k, v = (
            nn.Dense(c, name=name)(h).reshape(*h.shape[:2], self.heads, -1)
            for name in ("query", "key", "value")
        )
        h = jax.nn.dot_product_attention(q, k, v).reshape(x.shape)
        return x + nn.Dense(c, name="project")(h)


class Pointwise(nn.Module):
    """The dense layer at every place."""

    @nn.compact
    def __call__(self, x):
        return pointwise(dense(16, name="Dense_0"), x)


class PlainDense(nn.Module):
    """The same on an array of four axes."""

    @nn.compact
    def __call__(self, x):
        return nn.Dense(16)(x)


def enlarged(params, x):
    """A convolution of the enlarged image."""
    return nn.Conv(20, (3, 3)).apply(params, double(x))


PAIRS = {
    "group_norm": (GroupNorm(), nn.GroupNorm(groups(24)).apply),
    "double_conv": (DoubleConv(20, "float32"), enlarged),
    "attention": (Attention(1, "float32"), PlainAttention(1).apply),
    "attention_heads": (Attention(3, "float32"), PlainAttention(3).apply),
    "pointwise": (Pointwise(), PlainDense().apply),
}


def parameters(layer, rng):
    """Drawn ones, and noise upon them, so that none is zero."""
    drawn = layer.init(jax.random.key(1), X)
    return jax.tree.map(lambda a: a + 0.3 * rng.standard_normal(a.shape).astype("f"), drawn)


@pytest.mark.parametrize("name", PAIRS)
def test_values_and_gradients_equal_the_plain_forms(name):
    layer, plain = PAIRS[name]
    rng = np.random.default_rng(0)
    params = parameters(layer, rng)
    wanted = rng.standard_normal(layer.apply(params, X).shape).astype("f")

    def measured(apply):
        def loss(params, x):
            out = apply(params, x)
            return jnp.mean((out - wanted) ** 2), out

        return jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))(params, X)

    with jax.default_matmul_precision("highest"):
        found, expected = measured(layer.apply), measured(plain)
    largest = max(np.abs(a).max() for a in jax.tree.leaves(expected))

    def close(a, b):
        # A key's bias has a gradient of rounding alone: it is held against the largest.
        size = max(np.linalg.norm(b), 1e-3 * largest * b.size**0.5)
        assert np.linalg.norm(a - b) < 1e-5 * size

    jax.tree.map(close, found, expected)


def test_derivatives_along_a_direction_equal_the_plain_form():
    layer, plain = PAIRS["double_conv"]
    rng = np.random.default_rng(0)
    params, direction = parameters(layer, rng), parameters(layer, rng)
    along = direction, rng.standard_normal(X.shape).astype("f")
    with jax.default_matmul_precision("highest"):
        found, expected = (jax.jvp(apply, (params, X), along)[1] for apply in (layer.apply, plain))
    assert np.linalg.norm(found - expected) < 1e-5 * np.linalg.norm(expected)


@pytest.mark.pinned
def test_a_gradient_is_not_computed_for_the_zeros_around():
    kernel = jnp.ones((2, 2, X.shape[-1], 20))

    def gradient(x):
        return jax.grad(lambda x: conv_2x2(x, kernel).sum())(x)

    counted = jax.jit(gradient).lower(X).compile().cost_analysis()["flops"]
    assert counted == 2 * 4 * X.size * 20  # each entry of x meets four of the kernel's


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_dropout_keeps_its_rate_and_its_mean(rate):
    count = 4 * 64 * 64 * 8
    out = dropout(jax.random.split(jax.random.key(0), 4), jnp.ones((4, 64, 64, 8)), rate)
    std = (rate * (1 - rate) / count) ** 0.5
    rate = round(rate * 2**16) / 2**16
    assert jnp.mean(out == 0) == pytest.approx(rate, abs=4 * std)
    assert out.mean() == pytest.approx(1, abs=4 * std / (1 - rate))
    np.testing.assert_allclose(out[out != 0], 1 / (1 - rate), rtol=1e-6)
    assert (out[0] != out[1]).any()
