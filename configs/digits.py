"""UCI digits, 8x8 in 17 levels, shipped inside scikit-learn: nothing to download.

Command: python train.py --config=configs/digits.py
Hardware and time: 2 CPU cores, 3 minutes, 1.3 GiB.
Result: 2.036 bits/dim on the 360 test images, mean of three seeds (docs/results.md).

The variant `ncsn` is not the paper's run, which is configs/ncsn.py:

| | as published, for data in [-1, 1] | here | why |
|---|---|---|---|
| noise levels | 2 to 0.02 | 10 to 0.01 | the schedule's defaults, as in older runs |
| Langevin rate | 0.4 (code), 0.2 (algorithm 1) | 0.2 | algorithm 1 |
| last noise | stays | removed by one more call | cleaner images |
| data and training | MNIST, RefineNet, rate 1e-3, no average | as the other variants | two cores |
"""

from ml_collections import ConfigDict

from diffusion_jax.configuration import default_config, with_variant

# Class-conditional, for guidance; and NCSN's method (Song & Ermon 2019) with settings of our own:
# ten noise levels, score prediction, annealed Langevin dynamics.
VARIANTS = {
    "conditional": {"model": {"classes": 10}, "train": {"label_dropout": 0.1}},
    "ncsn": {
        "schedule": {"name": "variance_exploding", "steps": 10},
        "prediction": "score",
        "weight": "snr",
        "sample": {
            "sampler": "langevin",
            "steps": 10,
            "clip": False,
            "langevin_steps": 100,
            "langevin_rate": 0.2,
        },
    },
}


def get_config(variant: str = "") -> ConfigDict:
    """Return a U-Net of 0.7M parameters, with settings chosen on a fifth of the training split."""
    config = default_config()
    config.name = "digits"
    config.data.update({"name": "digits", "channels": 1, "flip": False})
    config.schedule.name = "log_snr"
    config.model.update(
        {
            "channels": 32,
            "multipliers": (1, 2),
            "blocks": 1,
            "attention_resolutions": (4,),
            "dropout": 0.0,
        }
    )
    config.optimizer.update({"learning_rate": 2e-3, "warmup_steps": 100, "decay": "cosine"})
    config.ema.decay = 0.99
    config.train.update(
        {
            "steps": 4000,
            "batch_size": 32,
            "log_every": 200,
            "save_every": 2000,
            "sample_every": 2000,
        }
    )
    config.sample.steps = 250
    return with_variant(config, VARIANTS, variant)
