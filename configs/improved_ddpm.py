"""Improved DDPM on CIFAR-10 as published (Nichol & Dhariwal 2021): cosine schedule, 4000 steps.

Command: python train.py --config=configs/improved_ddpm.py[:variant] [--config.data.dir=FOLDER]
Result: not yet measured here; no published figure is quoted, because the layers differ slightly.

Variants: `hybrid`, which is also the config without a variant, and `vlb`, the bound with t drawn
by importance.

Values are those of the authors' code, github.com/openai/improved-diffusion at commit 1bc7bbb, with
the flags that its README gives for CIFAR-10; tests/test_recipes.py compares them, fact by fact with
its source. What still differs:

| | as published | here | why |
|---|---|---|---|
| first weights | PyTorch's: within 1/sqrt(fan_in), biases too | DDPM's | one U-Net for all |
| time embedding | cosines first, frequencies 10000^(-i/64) | sines first, i/63 | the same |
| norms | epsilon 1e-5 | 1e-6 | the same |
| downsampling | pads both sides | pads right and below | the same |
| decoder's bins | normal CDF by tanh, at least 1e-12 | exact | exactness |
| bits/dim | in float32 | variances in float64 | exactness |
| images | a new permutation every epoch, per process | per run | any number of devices |
"""

from ml_collections import ConfigDict

from diffusion_jax.configuration import changed, default_config, with_variant

IMPROVED = {
    "name": "improved_ddpm",
    "data": {"name": "cifar10", "split": "train", "channels": 3, "image_size": 0, "flip": False},
    "schedule": {"name": "cosine", "steps": 4000, "cosine_offset": 0.008, "beta_max": 0.999},
    "prediction": "eps",
    "variance": "learned_range",
    "decoder": "clipped_range",
    "loss": "hybrid",
    "weight": "simple",
    "timesteps": "uniform",
    "model": {
        "channels": 128,
        "multipliers": (1, 2, 2, 2),
        "blocks": 3,
        "attention_resolutions": (16, 8),
        "heads": 4,
        "dropout": 0.3,
        "scale_shift_norm": True,
        "resample_in_blocks": False,
        "dtype": "float32",
    },
    "optimizer": {
        "learning_rate": 1e-4,
        "warmup_steps": 0,
        "decay": "constant",
        "b1": 0.9,
        "b2": 0.999,
        "eps": 1e-8,
        "weight_decay": 0.0,
        "clip_norm": 0.0,
    },
    "ema": {"decay": 0.9999, "warmup": False},
    "train": {"steps": 500_000, "batch_size": 128},
    "sample": {"sampler": "ancestral", "steps": 0, "clip": True},
}

VARIANTS = {
    "hybrid": {},
    "vlb": {"loss": "bound", "bound_per_step": False, "timesteps": "loss_second_moment"},
}


def get_config(variant: str = "") -> ConfigDict:
    """Return the run on the hybrid loss, or one of `VARIANTS`."""
    return with_variant(changed(default_config(), IMPROVED), VARIANTS, variant)
