"""UCI digits, 8x8 in 17 levels, shipped inside scikit-learn: nothing to download.

Command: python train.py --config=configs/digits.py
"""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    """The embedded default."""
    config = default.get_config()
    config.name = "digits"
    config.data.update({"name": "digits", "channels": 1, "flip": False})
    config.schedule.name = "log_snr"
    config.model.update(
        {
            "channels": 32,
            "multipliers": (1, 2),
            "blocks": 2,
            "attention_resolutions": (4,),
        }
    )
    config.optimizer.update({"learning_rate": 2e-3, "warmup_steps": 100, "decay": "cosine"})
    config.ema.decay = 0.995
    config.train.update({"steps": 2000, "log_every": 100, "save_every": 1000, "sample_every": 1000})
    return config
