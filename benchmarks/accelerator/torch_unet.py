"""Our U-Net in plain PyTorch, for machines that have torch but no diffusers.

It has the layers of `diffusion_jax.models.unet` without the options (classes, heads, scale-shift
norms, resampling in blocks). Modules carry the names of our parameters: a kernel [..., in, out] is
a weight [out, in, ...] here, a norm's scale is its weight. `make parity` compares the outputs and
gradients of both.
"""

import torch  # pyright: ignore[reportMissingImports]
from torch import nn  # pyright: ignore[reportMissingImports]
from torch.nn import functional as F  # pyright: ignore[reportMissingImports]


def norm(channels: int) -> nn.GroupNorm:
    """Make a group norm: at most 32 groups, of at least 4 channels where there are 4."""
    most = max(1, min(32, channels // 4))
    groups = max(n for n in range(1, most + 1) if channels % n == 0)
    return nn.GroupNorm(groups, channels, eps=1e-6)


def conv(inputs: int, outputs: int) -> nn.Conv2d:
    """Make a 3x3 convolution that keeps the size."""
    return nn.Conv2d(inputs, outputs, 3, padding=1)


class Condition(nn.Module):
    """Map t `[b]`, 0 to 999, to dense(swish(dense(sinusoidal(t)))) `[b, 4 * channels]`."""

    def __init__(self, channels: int):
        super().__init__()
        half = channels // 2
        exponents = torch.arange(half, dtype=torch.float64) / (half - 1)
        self.register_buffer("frequencies", (10_000**-exponents).float(), persistent=False)
        self.time_0 = nn.Linear(channels, 4 * channels)
        self.time_1 = nn.Linear(4 * channels, 4 * channels)

    def forward(self, t):
        angles = t.float()[:, None] * self.frequencies
        h = self.time_0(torch.cat([angles.sin(), angles.cos()], dim=-1))
        return self.time_1(F.silu(h))


class ResBlock(nn.Module):
    """Return x plus two convolutions of it that are conditioned on the time."""

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
    """Return x plus self-attention over its pixels, with one head."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm = norm(channels)
        self.query, self.key = nn.Linear(channels, channels), nn.Linear(channels, channels)
        self.value, self.project = nn.Linear(channels, channels), nn.Linear(channels, channels)

    def forward(self, x):
        h = self.norm(x).flatten(2).transpose(1, 2)[:, None]  # the fast kernels want four axes
        h = F.scaled_dot_product_attention(self.query(h), self.key(h), self.value(h))
        h = self.project(h)[:, 0].transpose(1, 2)
        return x + h.reshape(x.shape)


class Down(nn.Conv2d):
    """Halve the image with a strided 3x3 convolution.

    For an even side, JAX's SAME padding is one row of zeros below and one column on the right.
    """

    def forward(self, x):
        return super().forward(F.pad(x, (0, 1, 0, 1)))


class Up(nn.Conv2d):
    """Double the image by nearest neighbours, then convolve it."""

    def forward(self, x):
        return super().forward(F.interpolate(x, scale_factor=2, mode="nearest"))


class UNet(nn.Module):
    """Map images `[b, c, h, w]` and times `[b]` to images `[b, c, h, w]`."""

    def __init__(self, shape, channels, multipliers, blocks, attention_resolutions, dropout):
        super().__init__()
        levels = list(enumerate(channels * m for m in multipliers))
        self.condition = Condition(channels)
        self.conv_in = conv(shape[-1], channels)
        # Names of modules: each list on the way down ends in a skip, each on the way up takes one.
        self.down, self.up = [], []

        def add(name: str, module: nn.Module) -> str:
            self.add_module(name, module)
            return name

        def block(name: str, inputs: int, outputs: int) -> str:
            return add(name, ResBlock(inputs, outputs, 4 * channels, dropout))

        def stage(way: str, level: int, i: int, inputs: int, outputs: int) -> list[str]:
            names = [block(f"{way}_{level}_block_{i}", inputs, outputs)]
            if max(shape[:2]) >> level in attention_resolutions:
                names.append(add(f"{way}_{level}_attention_{i}", Attention(outputs)))
            return names

        width, skips = channels, [channels]
        for level, outputs in levels:
            if level:
                self.down.append([add(f"down_{level}_resample", Down(width, width, 3, stride=2))])
                skips.append(width)
            for i in range(blocks):
                self.down.append(stage("down", level, i, width, outputs))
                width = outputs
                skips.append(width)
        self.middle = [
            block("middle_block_0", width, width),
            add("middle_attention", Attention(width)),
            block("middle_block_1", width, width),
        ]
        for level, outputs in reversed(levels):
            for i in range(blocks + 1):
                self.up.append(stage("up", level, i, width + skips.pop(), outputs))
                width = outputs
            if level:
                self.up[-1].append(add(f"up_{level}_resample", Up(width, width, 3, padding=1)))
        self.norm_out, self.conv_out = norm(width), conv(width, shape[-1])

    def forward(self, x, t):
        condition = self.condition(t)

        def run(names: list[str], h):
            for module in map(self.get_submodule, names):
                h = module(h, condition) if isinstance(module, ResBlock) else module(h)
            return h

        h = self.conv_in(x)
        skips = [h]
        for names in self.down:
            h = run(names, h)
            skips.append(h)
        h = run(self.middle, h)
        for names in self.up:
            h = run(names, torch.cat([h, skips.pop()], dim=1))
        return self.conv_out(F.silu(self.norm_out(h)))


def unet(given: dict) -> nn.Module:
    """Build the network that `harness.peer_client.settings` describes."""
    names = ("shape", "channels", "multipliers", "blocks", "attention_resolutions", "dropout")
    return UNet(**{name: given[name] for name in names})
