"""Our U-Net in plain PyTorch, for machines that have torch but no diffusers.

Layer by layer `diffusion_jax.models.unet` without its options (classes, heads, scale-shift norms,
resampling in blocks); modules have the names of our parameters. `make parity` holds the two
together, outputs and gradients.
"""

import math

import torch  # pyright: ignore[reportMissingImports]
from torch import nn  # pyright: ignore[reportMissingImports]
from torch.nn import functional as F  # pyright: ignore[reportMissingImports]


def norm(channels: int) -> nn.GroupNorm:
    """Make a group norm: at most 32 groups, of at least 4 channels where there are 4."""
    most = max(1, min(32, channels // 4))
    groups = max(n for n in range(1, most + 1) if channels % n == 0)
    return nn.GroupNorm(groups, channels, eps=1e-6)


def conv(inputs: int, outputs: int, **options) -> nn.Conv2d:
    """Make a 3x3 convolution that keeps the size."""
    return nn.Conv2d(inputs, outputs, 3, **{"padding": 1, **options})


class Condition(nn.Module):
    """dense(swish(dense(sinusoidal(t)))): `[b]` -> `[b, 4 * channels]`."""

    def __init__(self, channels: int):
        super().__init__()
        half = channels // 2
        frequencies = torch.exp(-math.log(10_000) * torch.arange(half) / (half - 1))
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.time_0 = nn.Linear(channels, 4 * channels)
        self.time_1 = nn.Linear(4 * channels, 4 * channels)

    def forward(self, t):
        angles = t.float()[:, None] * self.frequencies
        h = self.time_0(torch.cat([angles.sin(), angles.cos()], dim=-1))
        return self.time_1(F.silu(h))


class ResBlock(nn.Module):
    """Two convolutions that see the condition, added to their input."""

    def __init__(self, inputs: int, outputs: int, condition: int, dropout: float):
        super().__init__()
        self.norm_0, self.conv_0 = norm(inputs), conv(inputs, outputs)
        self.condition = nn.Linear(condition, outputs)
        self.norm_1, self.conv_1 = norm(outputs), conv(outputs, outputs)
        self.dropout = nn.Dropout(dropout)
        self.shortcut = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x, condition):
        h = self.conv_0(F.silu(self.norm_0(x)))
        h = self.norm_1(h + self.condition(F.silu(condition))[:, :, None, None])
        return self.shortcut(x) + self.conv_1(self.dropout(F.silu(h)))


class Attention(nn.Module):
    """Self-attention with one head over all places, added to its input."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm = norm(channels)
        self.query, self.key, self.value, self.project = (
            nn.Linear(channels, channels) for _ in range(4)
        )

    def forward(self, x):
        h = self.norm(x).flatten(2).transpose(1, 2)[:, None]
        h = F.scaled_dot_product_attention(self.query(h), self.key(h), self.value(h))
        h = self.project(h)[:, 0].transpose(1, 2)
        return x + h.reshape(x.shape)


class Down(nn.Conv2d):
    """A convolution with stride 2; zeros are put on below and to the right only, as in JAX."""

    def __init__(self, channels: int):
        super().__init__(channels, channels, 3, stride=2)

    def forward(self, x):
        return super().forward(F.pad(x, (0, 1, 0, 1)))


class Up(nn.Conv2d):
    """A convolution of the image at twice its size."""

    def __init__(self, channels: int):
        super().__init__(channels, channels, 3, padding=1)

    def forward(self, x):
        return super().forward(F.interpolate(x, scale_factor=2, mode="nearest"))


class UNet(nn.Module):
    """`(x [b, c, h, w], t [b]) -> [b, c, h, w]`; see `benchmarks.peer.settings` for `given`."""

    def __init__(self, given: dict):
        super().__init__()
        channels, self.blocks = given["channels"], given["blocks"]
        self.levels = list(enumerate(channels * m for m in given["multipliers"]))
        self.attended = set(given["attention_resolutions"])
        side = max(given["shape"][:2])
        self.condition = Condition(channels)
        self.conv_in = conv(given["shape"][-1], channels)
        skips, width = [channels], channels
        for level, out in self.levels:
            if level:
                self.add_module(f"down_{level}_resample", Down(width))
                skips.append(width)
            for i in range(self.blocks):
                self._stage(f"down_{level}", i, width, out, side >> level, given)
                width = out
                skips.append(width)
        self._block("middle_block_0", width, width, given)
        self.middle_attention = Attention(width)
        self._block("middle_block_1", width, width, given)
        for level, out in reversed(self.levels):
            for i in range(self.blocks + 1):
                self._stage(f"up_{level}", i, width + skips.pop(), out, side >> level, given)
                width = out
            if level:
                self.add_module(f"up_{level}_resample", Up(width))
        self.norm_out, self.conv_out = norm(width), conv(width, given["shape"][-1])

    def _block(self, name: str, inputs: int, outputs: int, given: dict) -> None:
        block = ResBlock(inputs, outputs, 4 * given["channels"], given["dropout"])
        self.add_module(name, block)

    def _stage(self, level: str, i: int, inputs: int, outputs: int, side: int, given: dict) -> None:
        self._block(f"{level}_block_{i}", inputs, outputs, given)
        if side in self.attended:
            self.add_module(f"{level}_attention_{i}", Attention(outputs))

    def forward(self, x, t):
        condition = self.condition(t)

        def stage(x, level: str, i: int):
            x = self.get_submodule(f"{level}_block_{i}")(x, condition)
            name = f"{level}_attention_{i}"
            return self.get_submodule(name)(x) if hasattr(self, name) else x

        h = self.conv_in(x)
        skips = [h]
        for level, _ in self.levels:
            if level:
                h = self.get_submodule(f"down_{level}_resample")(h)
                skips.append(h)
            for i in range(self.blocks):
                h = stage(h, f"down_{level}", i)
                skips.append(h)
        h = self.middle_block_0(h, condition)
        h = self.middle_block_1(self.middle_attention(h), condition)
        for level, _ in reversed(self.levels):
            for i in range(self.blocks + 1):
                h = stage(torch.cat([h, skips.pop()], dim=1), f"up_{level}", i)
            if level:
                h = self.get_submodule(f"up_{level}_resample")(h)
        return self.conv_out(F.silu(self.norm_out(h)))
