"""DDPM's U-Net: a network that maps a noisy image and its time to an image."""

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import repeat

import flax.linen as nn
import jax
import jax.numpy as jnp

from diffusion_jax.core.arrays import materialized
from diffusion_jax.core.keys import fold
from diffusion_jax.errors import UserError, unknown_name
from diffusion_jax.models.embedding import Condition
from diffusion_jax.models.layers import ZEROS, Attention, GroupNorm, ResBlock, conv
from diffusion_jax.models.recompute import recomputing
from diffusion_jax.models.resampling import DoubleConv, double, halve

DTYPES = ("float32", "bfloat16")
MOST_CHANNELS, MOST_LEVELS, MOST_BLOCKS = 2**16, 12, 64  # beyond them tracing alone takes minutes


class UNet(nn.Module):
    """The U-Net of DDPM: residual blocks on the way down and, with skip connections, up again.

    Level i works at 1 / 2^i of the image's size with channels * multipliers[i] channels: `blocks`
    residual blocks on the way down, one more on the way up, each followed by self-attention where
    the longer side of the feature map is in `attention_resolutions`. The defaults are the paper's
    CIFAR-10 network. Parameters are always float32; norms, softmax, time embedding and output are
    computed in float32 for any `dtype`.

    Fields:
      out_channels: channels of the output.
      channels: channels of the first level; the condition vector has four times as many.
      multipliers: channel multipliers, one per level.
      blocks: residual blocks per level.
      attention_resolutions: sides in pixels; values that do not occur have no effect.
      heads: attention heads.
      dropout: rate, inside every residual block.
      classes: number of labels, 0 for an unconditional network.
      scale_shift_norm: the condition scales and shifts the second norm instead of being added.
      resample_in_blocks: down- and upsample in residual blocks instead of with one convolution.
      dtype: precision of convolutions and attention, 'float32' or 'bfloat16'.
      remat: recompute whole blocks in the backward pass, not only what is cheap: less memory, more
        time.

    Source: Ho et al. 2020, appendix B; Dhariwal & Nichol 2021, section 3 (the options).
    """

    out_channels: int
    channels: int = 128
    multipliers: Sequence[int] = (1, 2, 2, 2)
    blocks: int = 2
    attention_resolutions: Sequence[int] = (16,)
    heads: int = 1
    dropout: float = 0.1
    classes: int = 0
    scale_shift_norm: bool = False
    resample_in_blocks: bool = False
    dtype: str = "float32"
    remat: bool = False

    def __post_init__(self):
        # A network is a static argument, so it must be hashable; a list is not.
        self.multipliers = tuple(self.multipliers)
        self.attention_resolutions = tuple(self.attention_resolutions)
        super().__post_init__()
        _check(self)

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        t: jax.Array,
        label: jax.Array | None = None,
        dropout_keys: jax.Array | None = None,
    ) -> jax.Array:
        """Run the network.

        Args:
          x: images, float32 [b, h, w, c].
          t: times in the paper's units (0 to 999), float32 [b].
          label: int32 [b], `classes` meaning "no class"; None means "no class" for all.
          dropout_keys: one typed key per image [b]; None switches dropout off.

        Returns:
          float32 [b, h, w, out_channels].

        Raises:
          UserError: the image size is invalid.
        """
        check_image_size(*x.shape[1:3], levels=len(self.multipliers))
        condition = Condition(self.channels, self.classes, name="condition")(t, label)
        again = partial(recomputing, everything=self.remat)
        enlarge = recomputing(DoubleConv, everything=True)  # all of it is cheap but a convolution
        make_block = partial(
            again(ResBlock),
            dropout=self.dropout,
            scale_shift_norm=self.scale_shift_norm,
            dtype=self.dtype,
        )
        dropout_of_blocks = self._dropout_of_blocks(dropout_keys)

        def block(x, channels, name, resample=None):
            layer = make_block(channels, resample=resample, name=name)
            return layer(x, condition, next(dropout_of_blocks))

        def attention(x, name):
            return again(Attention)(self.heads, self.dtype, name=name)(x)

        def stage(x, channels, level, i):
            x = block(x, channels, f"{level}_block_{i}")
            if max(x.shape[1:3]) in self.attention_resolutions:
                x = attention(x, f"{level}_attention_{i}")
            return x

        def change_size(x, name, in_block, alone):
            if self.resample_in_blocks:
                return block(x, x.shape[-1], name, resample=in_block)
            return alone(x.shape[-1], dtype=self.dtype, name=name)(x)

        levels = list(enumerate(self.channels * m for m in self.multipliers))

        h = conv(self.channels, dtype=self.dtype, name="conv_in")(x)
        skips = [h]
        for level, channels in levels:
            if level > 0:
                h = change_size(h, f"down_{level}_resample", halve, partial(conv, strides=2))
                skips.append(h)
            for i in range(self.blocks):
                h = stage(h, channels, f"down_{level}", i)
                skips.append(h)

        h = block(h, h.shape[-1], "middle_block_0")
        h = attention(h, "middle_attention")
        h = block(h, h.shape[-1], "middle_block_1")

        for level, channels in reversed(levels):
            for i in range(self.blocks + 1):
                h = jnp.concatenate(materialized([h, skips.pop()]), axis=-1)
                h = stage(h, channels, f"up_{level}", i)
            if level > 0:
                h = change_size(h, f"up_{level}_resample", double, enlarge)

        h = nn.swish(GroupNorm(name="norm_out")(h))
        return conv(self.out_channels, kernel_init=ZEROS, name="conv_out")(h)

    def _dropout_of_blocks(self, keys: jax.Array | None) -> Iterator[jax.Array | None]:
        """Return each residual block's own keys [b], so that no two blocks share a mask."""
        if keys is None or self.dropout == 0:
            return repeat(None)
        levels = len(self.multipliers)
        resampling = 2 * (levels - 1) if self.resample_in_blocks else 0
        blocks = (2 * self.blocks + 1) * levels + 2 + resampling
        # All at once: a loop of random bits for each block takes as long to compile as the block.
        return iter(materialized(list(jax.vmap(partial(fold, keys))(jnp.arange(blocks)))))


def _check(model: UNet) -> None:
    """Raise a UserError if a setting is out of range or contradicts another."""
    channels, heads, dropout = model.channels, model.heads, model.dropout
    if model.dtype not in DTYPES:
        raise unknown_name("dtype", model.dtype, DTYPES)
    if not 4 <= channels <= MOST_CHANNELS or channels % 2:
        raise UserError(
            f"model.channels is {channels}; it must be even and at least 4, at most {MOST_CHANNELS}"
        )
    if not 1 <= len(model.multipliers) <= MOST_LEVELS or min(model.multipliers) < 1:
        raise UserError(
            f"model.multipliers is {model.multipliers!s:.50}; it takes 1 to {MOST_LEVELS} integers "
            "above zero"
        )
    if not 1 <= model.blocks <= MOST_BLOCKS or model.classes < 0:
        raise UserError(
            f"model.blocks is {model.blocks} and must be at least 1, at most {MOST_BLOCKS}; "
            f"model.classes is {model.classes} and must be at least 0"
        )
    if heads < 1 or channels % heads:
        raise UserError(f"model.heads is {heads}; it must divide model.channels, {channels}")
    if not 0 <= dropout < 1:
        raise UserError(f"model.dropout is {dropout}; it must be at least 0 and below 1")


def check_image_size(height: int, width: int, levels: int) -> None:
    """Raise a UserError if a side cannot be halved levels - 1 times; it names sizes that can."""
    factor = 2 ** (levels - 1)
    if height % factor == 0 and width % factor == 0:
        return
    smaller = [side // factor * factor for side in (height, width)]
    larger = [-(-side // factor) * factor for side in (height, width)]
    nearest = " or ".join(f"{h}x{w}" for h, w in (smaller, larger) if min(h, w) > 0)
    raise UserError(
        f"image size {height}x{width} is not divisible by {factor} (2^(levels-1)); "
        f"nearest: {nearest}"
    )
