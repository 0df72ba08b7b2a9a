"""MNIST, 28x28 in 256 grey levels, with a U-Net of 9.1M parameters.

Command: python train.py --config=configs/mnist.py [--config.data.dir=FOLDER]
Hardware: any GPU or TPU; on a CPU use fewer channels (--config.model.channels=32).
Result: not yet measured.
"""

from ml_collections import ConfigDict

from diffusion_jax.configuration import default_config


def get_config() -> ConfigDict:
    """Return a config with three levels, from 28x28 to 7x7, and attention at 7x7."""
    config = default_config()
    config.name = "mnist"
    config.data.update({"name": "mnist", "channels": 1, "flip": False})
    config.model.update({"channels": 64, "multipliers": (1, 2, 4), "attention_resolutions": (7,)})
    config.optimizer.warmup_steps = 1000
    config.ema.decay = 0.999
    config.train.update({"steps": 50_000, "save_every": 2500, "sample_every": 2500})
    return config
