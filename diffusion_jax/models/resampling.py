"""Resampling between two levels of a U-Net: half the size, and twice the size."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from diffusion_jax.models.layers import ZEROS, fan_avg_uniform


def halve(x: jax.Array) -> jax.Array:
    """Average 2x2 squares: [b, h, w, c] -> [b, h/2, w/2, c]."""
    return nn.avg_pool(x, (2, 2), strides=(2, 2))


def double(x: jax.Array) -> jax.Array:
    """Enlarge by nearest neighbour: [b, h, w, c] -> [b, 2h, 2w, c]."""
    return x.repeat(2, axis=1).repeat(2, axis=2)


def _convolve(x: jax.Array, kernel: jax.Array, pad: int) -> jax.Array:
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), [(pad, pad)] * 2, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


@jax.custom_jvp
def conv_2x2(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Convolve x, padded with zeros: [b, h, w, c], [2, 2, c, c'] -> [b, h+1, w+1, c']."""
    return _convolve(x, kernel, 1)


# The derivative by the kernel pads x explicitly: XLA's CPU compiler has no fast gradient where it
# pads an even window itself. The derivative by x does not: it would include the zeros' gradient.
conv_2x2.defjvps(
    lambda dx, y, x, kernel: _convolve(dx, kernel, 1),
    lambda dkernel, y, x, kernel: _convolve(
        jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))), dkernel, 0
    ),
)


class DoubleConv(nn.Module):
    """`conv(double(x))` at 4/9 of its cost: [b, h, w, c] -> [b, 2h, 2w, channels].

    In the enlarged image every row appears twice. For even output rows, the kernel's first row
    covers one row of x and its other two the next; for odd output rows, the first two cover one row
    and the last the next. The same holds for columns. So each of the four parities of output pixels
    is a 2x2 convolution of x with sums of the kernel's entries.
    """

    channels: int
    dtype: str

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        b, height, width, c = x.shape
        kernel = self.param("kernel", fan_avg_uniform, (3, 3, c, self.channels))
        bias = self.param("bias", ZEROS, (self.channels,))

        def paired(k, axis):
            first, middle, last = jnp.split(k, 3, axis)
            even, odd = [first, middle + last], [first + middle, last]
            return jnp.stack([jnp.concatenate(pair, axis) for pair in (even, odd)], axis=-2)

        # [2, 2, c, 2, 2, channels]: taps, then the parity of the output pixel.
        four = jnp.swapaxes(paired(paired(kernel, 1), 0), -2, -3)
        four = four.reshape(2, 2, c, -1).astype(self.dtype)
        y = conv_2x2(x.astype(self.dtype), four)
        y = y.reshape(b, height + 1, width + 1, 2, 2, self.channels)
        y = jnp.stack([y[:, i : i + height, :, i] for i in (0, 1)], axis=2)
        y = jnp.stack([y[:, :, :, j : j + width, j] for j in (0, 1)], axis=4)
        return y.reshape(b, 2 * height, 2 * width, -1) + bias.astype(self.dtype)
