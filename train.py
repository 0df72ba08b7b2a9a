"""Train a diffusion model: python train.py --config=configs/cifar10.py [--config.key=value ...]"""

from diffusion_jax.start import start

if __name__ == "__main__":
    start("train")
