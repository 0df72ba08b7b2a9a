"""The networks that ours are compared with, in PyTorch: built, then trained and called on command.

python -m benchmarks.harness.peer_server NAME SETTINGS_JSON

For an interpreter that has torch and the peer's package; `benchmarks.harness.peer_client` starts it. Commands
come on stdin, a line each: `train` (one step), `forward CALLS`, `sample IMAGES STEPS`, `memory`,
`forget` (the peak of memory so far), `quit`. Each is answered by a line of JSON; the first line
says what was built. SETTINGS_JSON is what `benchmarks.harness.peer_client.settings` says of one of our configs.
"""

import importlib.metadata
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any
from unittest import mock

import torch  # pyright: ignore[reportMissingImports]
from torch.nn.attention import SDPBackend, sdpa_kernel  # pyright: ignore[reportMissingImports]
from torch.utils.flop_counter import FlopCounterMode  # pyright: ignore[reportMissingImports]

from benchmarks.harness import process_memory
from benchmarks.harness.torch_unet import unet
from diffusion_jax.devices.allocator import give_back

BETA_START, BETA_END, T = 1e-4, 0.02, 1000

# What denoising_diffusion_pytorch imports for its training script; its network needs none of it.
ABSENT = (
    "accelerate",
    "ema_pytorch",
    "pytorch_fid",
    "pytorch_fid.fid_score",
    "pytorch_fid.inception",
    "scipy",
    "scipy.optimize",
    "torchvision",
)


def attention_levels(given: dict) -> list[bool]:
    """Which levels have attention, from the first."""
    side = max(given["shape"][:2])
    sides = [side // 2**level for level in range(len(given["multipliers"]))]
    return [side in given["attention_resolutions"] for side in sides]


def diffusers_unet(given: dict) -> torch.nn.Module:
    """DDPM's U-Net, the same layers as ours; where widths are under 128, other groups in norms."""
    from diffusers import UNet2DModel  # pyright: ignore[reportMissingImports]

    height, width, channels = given["shape"]
    kinds = ["Attn" * attends for attends in attention_levels(given)]
    return UNet2DModel(
        sample_size=(height, width),
        in_channels=channels,
        out_channels=channels,
        layers_per_block=given["blocks"],
        block_out_channels=tuple(given["channels"] * m for m in given["multipliers"]),
        down_block_types=tuple(f"{kind}DownBlock2D" for kind in kinds),
        up_block_types=tuple(f"{kind}UpBlock2D" for kind in reversed(kinds)),
        norm_num_groups=given["norm_groups"],
        norm_eps=1e-6,
        attention_head_dim=None,  # one head
        downsample_padding=0,
        flip_sin_to_cos=False,
        freq_shift=1,
        dropout=given["dropout"],
    )


def lucidrains_unet(given: dict) -> torch.nn.Module:
    """denoising_diffusion_pytorch's own network of the same widths: another one than ours."""
    absent = {name: mock.MagicMock() for name in ABSENT}
    with mock.patch.dict(sys.modules, absent):
        from denoising_diffusion_pytorch import Unet  # pyright: ignore[reportMissingImports]
    return Unet(
        dim=given["channels"],
        dim_mults=tuple(given["multipliers"]),
        channels=given["shape"][-1],
        dropout=given["dropout"],
        full_attn=tuple(attention_levels(given)),
    )


# Builder, package, whether it is compiled, and the order of an image's numbers in memory.
PEERS = {
    "diffusers": (diffusers_unet, "diffusers", False, torch.channels_last),
    "diffusers_compiled": (diffusers_unet, "diffusers", True, torch.channels_last),
    "torch": (unet, "torch", False, torch.channels_last),
    "torch_compiled": (unet, "torch", True, torch.channels_last),
    "denoising_diffusion_pytorch": (
        lucidrains_unet,
        "denoising-diffusion-pytorch",
        False,
        torch.contiguous_format,
    ),
}


class Peer:
    """A network, its optimiser and average, and one batch to train on."""

    def __init__(self, name: str, given: dict):
        build, self.package, compiled, self._layout = PEERS[name]
        with torch.device("meta"):
            build(given)  # imports what it needs
        self.imported_bytes = process_memory.resident_bytes()
        self._given = given
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        network = build(given).to(self._device, memory_format=self._layout)
        self._params = list(network.parameters())
        self.parameters = sum(each.numel() for each in self._params)
        self.flops = self._count(network)
        self._network = torch.compile(network) if compiled else network
        self._optimizer = torch.optim.Adam(self._params, fused=True, **given["adam"])
        self._average = [each.detach().clone() for each in self._params]
        self._images = self._noise(given["batch"]).clamp(-1, 1)
        alpha_bar = torch.cumprod(1 - torch.linspace(BETA_START, BETA_END, T).double(), 0)
        self._alpha_bar = alpha_bar.tolist()
        self._signal = alpha_bar.sqrt().float().to(self._device).view(-1, 1, 1, 1)
        self._noise_std = (1 - alpha_bar).sqrt().float().to(self._device).view(-1, 1, 1, 1)

    def _noise(self, count: int) -> torch.Tensor:
        height, width, channels = self._given["shape"]
        noise = torch.randn(count, channels, height, width, device=self._device)
        return noise.contiguous(memory_format=self._layout)

    def _count(self, network) -> dict[str, int]:
        """Operations of matrix products and convolutions, counted on one image."""
        size, one = self._given["batch"], torch.zeros(1, dtype=torch.long, device=self._device)
        flops = {}
        # It does not know what the CPU's attention in one piece does.
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            output = _output(network(self._noise(1), one))
            flops["forward"] = counter.get_total_flops() * size
            output.square().mean().backward()
            flops["train"] = counter.get_total_flops() * size
        network.zero_grad(set_to_none=True)
        return flops

    def _call(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        lower = self._given["dtype"] == "bfloat16"
        with torch.autocast(self._device, torch.bfloat16, enabled=lower):
            return _output(self._network(x, t)).float()

    def train(self) -> None:
        """One step: t and noise, the error of the noise, its gradient clipped, Adam, average."""
        self._network.train()
        x0 = self._images
        t = torch.randint(T, (len(x0),), device=self._device)
        eps = torch.randn_like(x0)
        loss = (self._call(self._signal[t] * x0 + self._noise_std[t] * eps, t) - eps).square()
        loss.mean().backward()
        if self._given["clip_norm"]:
            torch.nn.utils.clip_grad_norm_(self._params, self._given["clip_norm"])
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        torch._foreach_lerp_(self._average, self._params, 1 - self._given["ema_decay"])

    @torch.no_grad()
    def forward(self, calls: str = "1") -> None:
        """Calls of the network without dropout."""
        self._network.eval()
        t = torch.arange(len(self._images), device=self._device) % T
        for _ in range(int(calls)):
            self._call(self._images, t)

    @torch.no_grad()
    def sample(self, images: str, steps: str) -> None:
        """Ancestral sampling along evenly spaced steps (Ho et al. 2020, algorithm 2)."""
        self._network.eval()
        x, count = self._noise(int(images)), int(steps)
        times = [round(i * (T - 1) / max(count - 1, 1)) for i in range(count)]
        for i, time_step in reversed(list(enumerate(times))):
            now, before = self._alpha_bar[time_step], self._alpha_bar[times[i - 1]] if i else 1.0
            alpha = now / before
            eps = self._call(x, torch.full((len(x),), time_step, device=self._device))
            x0 = ((x - (1 - now) ** 0.5 * eps) / now**0.5).clamp(-1, 1)
            x = (before**0.5 * (1 - alpha) * x0 + alpha**0.5 * (1 - before) * x) / (1 - now)
            if i:
                x = x + (1 - alpha) ** 0.5 * torch.randn_like(x)

    def memory(self) -> dict[str, int]:
        """Peaks of the process and, on an accelerator, of the device; bytes."""
        found = {"peak": process_memory.peak_bytes()}
        if self._device == "cuda":
            found["device_peak"] = torch.cuda.max_memory_allocated()
        return found

    def forget(self) -> None:
        """Peaks count from now on, without what is free just now."""
        give_back()
        process_memory.forget_peak()
        if self._device == "cuda":
            torch.cuda.reset_peak_memory_stats()

    def timed(self, action: Callable[[], Any]) -> dict:
        """Seconds of an action, the device waited for, and what it gave."""
        began, busy = time.perf_counter(), time.process_time()
        result = action()
        if self._device == "cuda":
            torch.cuda.synchronize()
        seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - busy
        return {"seconds": seconds, "cpu_seconds": cpu_seconds, **(result or {})}

    def about(self) -> dict:
        """What was built, with what."""
        packages = ("torch", self.package)
        on_gpu = self._device == "cuda"
        return {
            "parameters": self.parameters,
            "flops": self.flops,
            "device": torch.cuda.get_device_name() if on_gpu else "cpu",
            "threads": torch.get_num_threads(),
            "imported_bytes": self.imported_bytes,
            "float32_products": torch.get_float32_matmul_precision() if on_gpu else "float32",
            "versions": {each: importlib.metadata.version(each) for each in packages},
        }


def _output(output) -> torch.Tensor:
    return output if torch.is_tensor(output) else output.sample


def main() -> None:
    """Build, say so, and do what is asked until nobody asks."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print is no answer
    torch.set_float32_matmul_precision("high")  # TF32 on a GPU, as XLA does by itself
    torch.backends.cudnn.benchmark = True
    peer = Peer(sys.argv[1], json.loads(sys.argv[2]))
    print(json.dumps(peer.about()), file=answers, flush=True)
    actions = {each.__name__: each for each in (peer.train, peer.forward, peer.sample)}
    actions |= {"memory": peer.memory, "forget": peer.forget}
    for line in sys.stdin:
        name, *arguments = line.split()
        if name == "quit":
            return
        answer = peer.timed(lambda name=name, given=arguments: actions[name](*given))
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
