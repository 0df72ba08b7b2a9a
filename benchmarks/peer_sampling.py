"""How long does diffusers' own pipeline take? For an interpreter that has torch and diffusers.

python -m benchmarks.peer_sampling --parameters 701345 [--images 256] [--steps 1000] [--threads N]

A `DDPMPipeline` of 1000 training steps with a U-Net of as many parameters as asked for, as near as
its width allows, on 8x8x1 images. Prints one line of JSON; `benchmarks.sampling --peers` reads it.
"""

import argparse
import json
import time

WIDTHS = range(8, 257, 8)  # whole groups of 8 channels


def unet(width: int):
    """DDPM's U-Net as the digits have it: two levels, one block each, attention at 4x4."""
    from diffusers import UNet2DModel  # pyright: ignore[reportMissingImports]

    return UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        layers_per_block=1,
        block_out_channels=(width, 2 * width),
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=8,
        attention_head_dim=None,  # one head
    )


def count(network) -> int:
    """The number of its parameters."""
    return sum(each.numel() for each in network.parameters())


def nearest(parameters: int):
    """The U-Net whose number of parameters is nearest."""
    import torch  # pyright: ignore[reportMissingImports]

    with torch.device("meta"):
        width = min(WIDTHS, key=lambda width: abs(count(unet(width)) - parameters))
    return unet(width)


def main() -> None:
    """Time one run of the pipeline after a short one."""
    import diffusers  # pyright: ignore[reportMissingImports]
    import torch  # pyright: ignore[reportMissingImports]

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parameters", type=int, required=True)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=0, help="0: as many as torch likes")
    given = parser.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    network = nearest(given.parameters).eval()
    scheduler = diffusers.DDPMScheduler(num_train_timesteps=1000)
    pipeline = diffusers.DDPMPipeline(network, scheduler).to(device)
    pipeline.set_progress_bar_config(disable=True)

    def draw(steps: int):
        return pipeline(batch_size=given.images, num_inference_steps=steps, output_type="np").images

    draw(2)
    began, busy = time.perf_counter(), time.process_time()
    shape = draw(given.steps).shape  # on the host, so all work is done
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - busy
    result = {
        "images": shape[0],
        "steps": given.steps,
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "parameters": count(network),
        "parameters_asked": given.parameters,
        "device": device,
        "threads": torch.get_num_threads(),
        "versions": {"torch": torch.__version__, "diffusers": diffusers.__version__},
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
