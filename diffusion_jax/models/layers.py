"""The U-Net's layers: group norm, per-image dropout, residual block, self-attention."""

import math
from collections.abc import Callable, Sequence
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from diffusion_jax.models.recompute import keep

ZEROS = nn.initializers.zeros


def fan_avg_uniform(key: jax.Array, shape: Sequence[int], dtype=jnp.float32) -> jax.Array:
    """Draw kernel entries uniformly from [-a, a], with a = sqrt(6 / (fan_in + fan_out)).

    `variance_scaling(1, 'fan_avg', 'uniform')` has the same distribution, but draws in the kernel's
    own shape: a flat draw is cheaper to compile, and a U-Net has eighty kernels.

    Source: Glorot & Bengio 2010, eq. 16; used for every layer in Ho et al. 2020's code.
    """
    *window, inputs, outputs = shape
    limit = math.sqrt(6 / (math.prod(window) * (inputs + outputs)))
    return jax.random.uniform(key, (math.prod(shape),), dtype, -limit, limit).reshape(shape)


dense = partial(nn.Dense, kernel_init=fan_avg_uniform)
conv = partial(nn.Conv, kernel_size=(3, 3), kernel_init=fan_avg_uniform)


def groups(channels: int) -> int:
    """Return the number of groups of a norm: at most 32, of 4 or more channels if possible.

    Source: Wu & He 2018, section 3; the minimum of 4 as in Karras et al. 2022's code.
    """
    # Groups of one channel would remove what `condition` adds: a small network would not see t.
    most = max(1, min(32, channels // 4))
    return max(n for n in range(1, most + 1) if channels % n == 0)


class GroupNorm(nn.Module):
    """Group normalisation in float32: [b, h, w, c] -> [b, h, w, c].

    (x - mean) / sqrt(var + 1e-6) * scale + bias, with mean and var over the pixels of an image and
    the channels of a group. var is the mean square minus the squared mean, which loses precision
    where |mean| is many times the standard deviation: 3e-4 at 30 times.

    Source: Wu & He 2018, section 3.
    """

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        b, c = x.shape[0], x.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (c,)).reshape(groups(c), -1)
        bias = self.param("bias", ZEROS, (c,)).reshape(groups(c), -1)
        x = x.astype(jnp.float32)

        def mean(of):
            # Per channel first: then the large arrays need only one multiplication, one addition
            # and two sums over pixels, the backward pass included.
            each = of.mean((1, 2)).reshape(b, groups(c), -1)
            return each.mean(-1, keepdims=True)

        centre = mean(x)
        var = jnp.maximum(mean(x * x) - centre * centre, 0.0)
        factor = jax.lax.rsqrt(var + 1e-6) * scale
        shift = bias - centre * factor
        return x * factor.reshape(b, 1, 1, c) + shift.reshape(b, 1, 1, c)


def dropout(keys: jax.Array, x: jax.Array, rate: float) -> jax.Array:
    """Zero each entry with probability `rate` and scale the others by 1 / (1 - rate).

    Image i's mask depends on keys[i] alone, so it is the same in any batch, at any position in it,
    and on any number of devices. Each entry uses 16 random bits, so `rate` is rounded to the
    nearest 1/65536.

    Args:
      keys: typed keys [b].
      x: [b, ...].
      rate: in [0, 1).

    Source: Srivastava et al. 2014, section 10 (scaling in training).
    """
    size, dropped = math.prod(x.shape[1:]), min(round(rate * 2**16), 2**16 - 1)
    words = jax.vmap(lambda key: jax.random.bits(key, (-(-size // 2),), jnp.uint32))(keys)
    halves = jax.lax.bitcast_convert_type(words, jnp.uint16).reshape(len(keys), -1)
    mask = keep((halves[:, :size] >= dropped).reshape(x.shape))
    return jnp.where(mask, x / (1 - dropped / 2**16), 0)


def pointwise(layer: Callable[[jax.Array], jax.Array], x: jax.Array) -> jax.Array:
    """Apply a dense layer at every pixel as one matrix product: [b, h, w, c] -> [b, h, w, c']."""
    # XLA's CPU compiler turns the kernel's gradient into a slow copy where x keeps its four axes.
    return layer(x.reshape(-1, x.shape[-1])).reshape(*x.shape[:-1], -1)


class ResBlock(nn.Module):
    """A residual block of two convolutions, with conditioning.

    h = conv(swish(norm(x))); h = norm(h + dense(swish(condition))), or, with `scale_shift_norm`,
    (scale, shift) = dense(swish(condition)) and h = norm(h) * (1 + scale) + shift;
    returns shortcut(x) + conv(dropout(swish(h))). `resample` is applied to x and before the first
    convolution. `dropout_keys` are this block's own, or None without dropout.
    [b, h, w, c] -> [b, h', w', channels].

    Source: Ho et al. 2020, appendix B; Dhariwal & Nichol 2021, section 3 (scale-shift, resample).
    """

    channels: int
    dropout: float
    scale_shift_norm: bool
    resample: Callable[[jax.Array], jax.Array] | None
    dtype: str

    @nn.compact
    def __call__(
        self, x: jax.Array, condition: jax.Array, dropout_keys: jax.Array | None
    ) -> jax.Array:
        h = nn.swish(GroupNorm(name="norm_0")(x))
        if self.resample:
            x, h = self.resample(x), self.resample(h)
        h = conv(self.channels, dtype=self.dtype, name="conv_0")(keep(h.astype(self.dtype)))

        condition = nn.swish(condition)[:, None, None, :]
        if self.scale_shift_norm:
            condition = dense(2 * self.channels, name="condition")(condition)
            scale, shift = jnp.split(condition, 2, axis=-1)
            h = GroupNorm(name="norm_1")(h) * (1 + scale) + shift
        else:
            h = GroupNorm(name="norm_1")(h + dense(self.channels, name="condition")(condition))

        h = nn.swish(h)
        if dropout_keys is not None:
            h = dropout(dropout_keys, h, self.dropout)
        h = conv(self.channels, dtype=self.dtype, kernel_init=ZEROS, name="conv_1")(
            keep(h.astype(self.dtype))
        )
        if x.shape[-1] != self.channels:
            x = pointwise(dense(self.channels, dtype=self.dtype, name="shortcut"), x)
        return x + h


class Attention(nn.Module):
    """Self-attention over all pixels of the feature map, added to its input.

    x + project(softmax(q k^T / sqrt(c / heads)) v), with q, k, v dense layers of norm(x) and the
    softmax in float32. [b, h, w, c] -> [b, h, w, c].

    Source: Vaswani et al. 2017, section 3.2; Ho et al. 2020, appendix B.
    """

    heads: int
    dtype: str

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        b, height, width, c = x.shape
        h = GroupNorm(name="norm")(x)
        query, key, value = (
            pointwise(dense(c, dtype=self.dtype, name=name), h).reshape(
                b, height * width, self.heads, -1
            )
            for name in ("query", "key", "value")
        )
        scores = jnp.einsum("bqhc,bkhc->bhqk", query, key, preferred_element_type=jnp.float32)
        weights = nn.softmax(scores / math.sqrt(c // self.heads)).astype(value.dtype)
        h = jnp.einsum("bhqk,bkhc->bqhc", weights, value).reshape(x.shape)
        project = dense(c, dtype=self.dtype, kernel_init=ZEROS, name="project")
        return x + pointwise(project, h)
