"""CIFAR-10 within 25 minutes on one large GPU: DDPM's network in bfloat16, few steps, few calls.

Command: python train.py --config=configs/cifar10_fast.py [--config.data.dir=FOLDER]
Hardware and time: one H100 or H200, not yet measured; 60,000 steps are 15.4 million images, at the
network's 35 GFLOP an image and 45% of 990 TFLOP/s 20 minutes.
Result: not yet measured.
"""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    """The paper's network; a rate that rises and falls to zero; 50 calls an image."""
    config = default.get_config()
    config.name = "cifar10_fast"
    config.model.dtype = "bfloat16"
    config.optimizer.update({"learning_rate": 4e-4, "warmup_steps": 1000, "decay": "cosine"})
    config.ema.decay = 0.999
    config.train.update({"steps": 60_000, "batch_size": 256, "save_every": 10_000})
    config.train.sample_every = 10_000
    config.sample.update({"sampler": "dpmpp_2m", "steps": 50, "grid": "log_snr"})
    return config
