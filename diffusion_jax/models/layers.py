"""The U-Net's parts: dropout by image, residual block, self-attention, resampling."""

import math
from collections.abc import Callable, Sequence
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from diffusion_jax.core.keys import fold

ZEROS = nn.initializers.zeros


def fan_avg_uniform(key: jax.Array, shape: Sequence[int], dtype=jnp.float32) -> jax.Array:
    """Kernel entries uniform in [-a, a], with a = sqrt(6 / (fan_in + fan_out)).

    `variance_scaling(1, 'fan_avg', 'uniform')` has the same distribution, but draws in the kernel's
    own shape: a flat draw is cheaper to compile, and a U-Net has eighty.

    Source: Glorot & Bengio 2010, eq. 16; Ho et al. 2020's code scales every layer so.
    """
    *window, inputs, outputs = shape
    limit = math.sqrt(6 / (math.prod(window) * (inputs + outputs)))
    return jax.random.uniform(key, (math.prod(shape),), dtype, -limit, limit).reshape(shape)


dense = partial(nn.Dense, kernel_init=fan_avg_uniform)
conv = partial(nn.Conv, kernel_size=(3, 3), kernel_init=fan_avg_uniform)


def groups(channels: int) -> int:
    """How many groups a norm has: at most 32, of at least 4 channels if there are 4.

    Source: Wu & He 2018, section 3; the least group as in Karras et al. 2022's code.
    """
    # A group of one channel would lose what `condition` adds: a small network would be blind to t.
    most = max(1, min(32, channels // 4))
    return max(n for n in range(1, most + 1) if channels % n == 0)


def group_norm(x: jax.Array, name: str) -> jax.Array:
    """Group normalisation in float32."""
    return nn.GroupNorm(groups(x.shape[-1]), epsilon=1e-6, dtype=jnp.float32, name=name)(x)


def dropout(keys: jax.Array, x: jax.Array, rate: float) -> jax.Array:
    """Zero each entry with probability `rate` and scale the others by 1 / (1 - rate).

    Image i's mask is a function of keys[i] alone, so it is the same in any batch, at any place in
    it, and on any number of devices.

    Args:
      keys: typed keys [b].
      x: [b, ...].
      rate: in [0, 1).

    Source: Srivastava et al. 2014, section 10 (scaling in training).
    """
    keep = jax.vmap(lambda key: jax.random.bernoulli(key, 1 - rate, x.shape[1:]))(keys)
    return jnp.where(keep, x / (1 - rate), 0)


def halve(x: jax.Array) -> jax.Array:
    """Mean over 2x2 squares: [b, h, w, c] -> [b, h/2, w/2, c]."""
    return nn.avg_pool(x, (2, 2), strides=(2, 2))


def double(x: jax.Array) -> jax.Array:
    """Nearest-neighbour enlargement: [b, h, w, c] -> [b, 2h, 2w, c]."""
    return x.repeat(2, axis=1).repeat(2, axis=2)


class ResBlock(nn.Module):
    """Two convolutions that see the condition, added to their input.

    h = conv(swish(norm(x))); h = norm(h + dense(swish(condition))), or, with `scale_shift_norm`,
    (scale, shift) = dense(swish(condition)) and h = norm(h) * (1 + scale) + shift;
    returns shortcut(x) + conv(dropout(swish(h))). `resample` is applied to x and before the first
    convolution; `dropout_layer` is this block's own number, so that no two blocks share a mask.
    [b, h, w, c] -> [b, h', w', channels].

    Source: Ho et al. 2020, appendix B; Dhariwal & Nichol 2021, section 3 (scale-shift, resample).
    """

    channels: int
    dropout: float
    dropout_layer: int
    scale_shift_norm: bool
    resample: Callable[[jax.Array], jax.Array] | None
    dtype: str

    @nn.compact
    def __call__(
        self, x: jax.Array, condition: jax.Array, dropout_keys: jax.Array | None
    ) -> jax.Array:
        h = nn.swish(group_norm(x, "norm_0"))
        if self.resample:
            x, h = self.resample(x), self.resample(h)
        h = conv(self.channels, dtype=self.dtype, name="conv_0")(h)

        condition = nn.swish(condition)[:, None, None, :]
        if self.scale_shift_norm:
            condition = dense(2 * self.channels, name="condition")(condition)
            scale, shift = jnp.split(condition, 2, axis=-1)
            h = group_norm(h, "norm_1") * (1 + scale) + shift
        else:
            h = group_norm(h + dense(self.channels, name="condition")(condition), "norm_1")

        h = nn.swish(h)
        if dropout_keys is not None and self.dropout > 0:
            keys = fold(dropout_keys, self.dropout_layer)
            h = dropout(keys, h, self.dropout)
        h = conv(self.channels, dtype=self.dtype, kernel_init=ZEROS, name="conv_1")(h)
        if x.shape[-1] != self.channels:
            x = dense(self.channels, dtype=self.dtype, name="shortcut")(x)
        return x + h


class Attention(nn.Module):
    """Self-attention over all places of the feature map, added to its input.

    x + project(softmax(q k^T / sqrt(c / heads)) v), with q, k, v dense in norm(x) and the softmax
    in float32. [b, h, w, c] -> [b, h, w, c].

    Source: Vaswani et al. 2017, section 3.2; Ho et al. 2020, appendix B.
    """

    heads: int
    dtype: str

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        b, height, width, c = x.shape
        h = group_norm(x, "norm")
        query, key, value = (
            dense(c, dtype=self.dtype, name=name)(h).reshape(b, height * width, self.heads, -1)
            for name in ("query", "key", "value")
        )
        h = jax.nn.dot_product_attention(query, key, value).reshape(x.shape)
        return x + dense(c, dtype=self.dtype, kernel_init=ZEROS, name="project")(h)
