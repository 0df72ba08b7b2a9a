"""Train a diffusion model: python train.py --config=configs/cifar10.py [--config.key=value ...]"""

from diffusion_jax.command_line import run
from diffusion_jax.commands.train import main

if __name__ == "__main__":
    run(main)
