"""CIFAR-10 in a given time: DDPM's network in bfloat16, with a plan scaled to fit that time.

Command: python train.py --config=configs/cifar10_fast.py --config.train.minutes=8
Hardware: one large GPU or a TPU. The number of steps follows from the speed of a few steps;
warm-up, cosine decay, saves and the average scale with it. To set the number of steps instead:
--config.train.minutes=0 --config.train.steps=N.
Result: not yet measured.
"""

from ml_collections import ConfigDict

from diffusion_jax.configuration import default_config


def get_config() -> ConfigDict:
    """Return DDPM's network on a log-SNR schedule, without dropout; 50 calls per image."""
    config = default_config()
    config.name = "cifar10_fast"
    config.schedule.name = "log_snr"
    config.model.update({"dtype": "bfloat16", "dropout": 0.0})
    config.optimizer.update({"learning_rate": 4e-4, "warmup_steps": 500, "decay": "cosine"})
    config.ema.decay = 0.995
    # The plan to be scaled. No sample grids during training: they take long to compile.
    config.train.update({"minutes": 25.0, "steps": 10_000, "save_every": 2000, "sample_every": 0})
    config.train.batch_size = 256
    config.sample.update({"sampler": "dpmpp_2m", "steps": 50, "grid": "log_snr"})
    return config
