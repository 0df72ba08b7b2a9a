"""NCSN (Song & Ermon 2019): ten noise levels, score prediction, annealed Langevin dynamics.

Command: python train.py --config=configs/ncsn.py[:variant] [--config.data.dir=FOLDER]
Result: not yet measured; no published figure is quoted, because the network is another.

Variants: `mnist`, which is also the config without a variant, and `cifar10`.

Values are those of the authors' code, github.com/ermongroup/ncsn at commit 7f27f4a;
tests/test_recipes.py compares them, fact by fact with its source. Their images lie in [0, 1], ours
in [-1, 1]: all lengths double. What still differs:

| | as published | here | why |
|---|---|---|---|
| network | RefineNet, a norm per noise level | U-Net of x / sqrt(1 + noise^2) | the only one here |
| images | 255/256 x + uniform noise of 1/256 | x | a ninth of the smallest noise level |
| loss | half the sum over dimensions | their mean | Adam divides it out but for epsilon |
| start of the chain | uniform on the images' range | N(0, 1 + noise^2) | forgotten: 1e-9 is left |

The code takes steps of 0.4 noise^2: x + 2e-5 s^2 score + sqrt(4e-5 s^2) eps with s = noise / 0.01.
The paper's algorithm 1 with the same 2e-5 would give 0.2.
"""

from ml_collections import ConfigDict

from diffusion_jax.configuration import changed, default_config, with_variant

NCSN = {
    "name": "ncsn",
    "data": {"name": "mnist", "split": "train", "channels": 1, "image_size": 0, "flip": False},
    "schedule": {"name": "variance_exploding", "steps": 10, "noise_min": 0.02, "noise_max": 2.0},
    "prediction": "score",
    "loss": "weighted",
    "weight": "snr",
    "timesteps": "uniform",
    "model": {
        "channels": 64,
        "multipliers": (1, 2, 4),
        "attention_resolutions": (7,),
        "dropout": 0.0,
    },
    "optimizer": {
        "learning_rate": 1e-3,
        "warmup_steps": 0,
        "decay": "constant",
        "b1": 0.9,
        "b2": 0.999,
        "eps": 1e-8,
        "weight_decay": 0.0,
        "clip_norm": 0.0,
    },
    "ema": {"decay": 0.0, "warmup": False},  # no average
    "train": {"steps": 200_000, "batch_size": 128},
    "sample": {
        "sampler": "langevin",
        "steps": 0,
        "clip": False,
        "langevin_steps": 100,
        "langevin_rate": 0.4,
        "langevin_denoise": False,
    },
}

VARIANTS = {
    "mnist": {},
    "cifar10": {
        "data": {"name": "cifar10", "channels": 3, "flip": True},
        "model": {"channels": 128, "multipliers": (1, 2, 2, 2), "attention_resolutions": (16,)},
    },
}


def get_config(variant: str = "") -> ConfigDict:
    """Return the run on MNIST, or one of `VARIANTS`."""
    return with_variant(changed(default_config(), NCSN), VARIANTS, variant)
