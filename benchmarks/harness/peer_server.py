"""PyTorch networks to compare with: built, then trained and called on command.

python -m benchmarks.harness.peer_server NAME SETTINGS_JSON

Runs in an interpreter that has torch; `peer_client` starts it and describes one of our configs in
SETTINGS_JSON. Commands come on stdin, one a line: `train` (one step), `forward CALLS`,
`sample IMAGES STEPS`, `memory`, `forget` (the peak of memory). Each is answered by a line of
JSON; the first line says what was built.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import torch  # pyright: ignore[reportMissingImports]

from benchmarks.harness import process_memory
from diffusion_jax.devices.allocator import give_back

BETA_START, BETA_END, T = 1e-4, 0.02, 1000


def diffusers_unet(given: dict) -> torch.nn.Module:
    """Build DDPM's U-Net, whose layers are ours; below 128 channels its norms group differently."""
    from diffusers import UNet2DModel  # pyright: ignore[reportMissingImports]

    height, width, channels = given["shape"]
    sides = [max(height, width) >> level for level in range(len(given["multipliers"]))]
    kinds = ["Attn" * (side in given["attention_resolutions"]) for side in sides]
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


def plain_unet(given: dict) -> torch.nn.Module:
    """Build our U-Net in plain PyTorch."""
    from benchmarks.accelerator.torch_unet import unet

    return unet(given)


# Names ending in _compiled are passed through torch.compile.
NETWORKS = {"diffusers": diffusers_unet, "torch": plain_unet}


class Peer:
    """A network, its optimiser and average, and one batch of images."""

    def __init__(self, name: str, given: dict):
        self.package, _, compiled = name.partition("_")
        build = NETWORKS[self.package]
        with torch.device("meta"):
            build(given)  # imports what it needs
        self.imported_bytes = process_memory.resident_bytes()
        self._given = given
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        network = build(given).to(self._device, memory_format=torch.channels_last)
        self._params = list(network.parameters())
        self.parameters = sum(each.numel() for each in self._params)
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
        return noise.contiguous(memory_format=torch.channels_last)

    def _call(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        lower = self._given["dtype"] == "bfloat16"
        with torch.autocast(self._device, torch.bfloat16, enabled=lower):
            output = self._network(x, t)
            return (output if torch.is_tensor(output) else output.sample).float()

    def train(self) -> None:
        """Take one step: draw t and noise, clip the loss's gradient, apply Adam, average."""
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
        """Call the network without dropout."""
        self._network.eval()
        t = torch.arange(len(self._images), device=self._device) % T
        for _ in range(int(calls)):
            self._call(self._images, t)

    @torch.no_grad()
    def sample(self, images: str, steps: str) -> None:
        """Sample ancestrally along evenly spaced steps (Ho et al. 2020, algorithm 2)."""
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
        """Return the peak bytes of the process and, on an accelerator, of the device."""
        found = {"peak": process_memory.peak_bytes()}
        if self._device == "cuda":
            found["device_peak"] = torch.cuda.max_memory_allocated()
        return found

    def forget(self) -> None:
        """Give free memory back and count peaks from now on."""
        give_back()
        process_memory.forget_peak()
        if self._device == "cuda":
            torch.cuda.reset_peak_memory_stats()

    def timed(self, action: Callable[[], Any]) -> dict:
        """Return the seconds of an action, waiting for the device, and what it found."""
        began, busy = time.perf_counter(), time.process_time()
        result = action()
        if self._device == "cuda":
            torch.cuda.synchronize()
        seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - busy
        return {"seconds": seconds, "cpu_seconds": cpu_seconds, **(result or {})}

    def about(self) -> dict:
        """Describe what was built, and with what."""
        on_gpu = self._device == "cuda"
        return {
            "parameters": self.parameters,
            "device": torch.cuda.get_device_name() if on_gpu else "cpu",
            "threads": torch.get_num_threads(),
            "imported_bytes": self.imported_bytes,
            "float32_products": torch.get_float32_matmul_precision() if on_gpu else "float32",
            "versions": {each: version(each) for each in ("torch", self.package)},
        }


def main() -> None:
    """Build the network, describe it, and answer commands until stdin ends."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # libraries may print
    torch.set_float32_matmul_precision("high")  # TF32 on a GPU, as XLA does by itself
    torch.backends.cudnn.benchmark = True
    peer = Peer(sys.argv[1], json.loads(sys.argv[2]))
    print(json.dumps(peer.about()), file=answers, flush=True)
    actions = {each.__name__: each for each in (peer.train, peer.forward, peer.sample)}
    actions |= {"memory": peer.memory, "forget": peer.forget}
    for line in sys.stdin:
        name, *arguments = line.split()
        answer = peer.timed(lambda name=name, given=arguments: actions[name](*given))
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
