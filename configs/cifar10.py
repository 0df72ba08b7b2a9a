"""CIFAR-10 with DDPM's network (35,746,307 parameters) and this project's own settings.

Command: python train.py --config=configs/cifar10.py[:variant] [--config.data.dir=FOLDER]
Hardware: a TPU or a large GPU.
Result: not yet measured.

The runs as published are configs/ddpm.py and configs/improved_ddpm.py. Here is, in all variants:

| | as published | here | why |
|---|---|---|---|
| t | independent draws | even over the batch | less variance, still unbiased |
| decoder | posterior variance of step 2, or learned | 1 - alpha_bar_1 | holds on every schedule |
| average | decay 0.9999 from the start | warms up | short runs |
| loss `bound` | DDPM: mean over t | sum over t, which clip_norm 1 always clips | in bits/dim |
| learned diagonal | starts from variance 1 | starts from beta_t | starts near the optimum |
| cosine_4000 | no flips, no clipping | flips, clip_norm 1 | as in the other variants |
| importance | the last ten losses of each t | a running mean | the images' order does not matter |
| mean: x0 in sampling | not clipped | clipped | as in the other variants |
"""

from ml_collections import ConfigDict

from diffusion_jax.configuration import default_config, with_variant

# Nichol & Dhariwal's network and learning rate.
IMPROVED = {
    "schedule": {"name": "cosine", "steps": 4000},
    "variance": "learned_range",
    "model": {
        "blocks": 3,
        "attention_resolutions": (16, 8),
        "heads": 4,
        "dropout": 0.3,
        "scale_shift_norm": True,
    },
    "optimizer": {"learning_rate": 1e-4, "warmup_steps": 0},
    "train": {"steps": 500_000},
}

VARIANTS = {
    "eps_simple": {},
    "eps_bound": {"loss": "bound"},
    "eps_bound_learned_variance": {"loss": "bound", "variance": "learned_diagonal"},
    "mean_simple": {"prediction": "mean"},
    "mean_bound": {"prediction": "mean", "loss": "bound"},
    "mean_bound_learned_variance": {
        "prediction": "mean",
        "loss": "bound",
        "variance": "learned_diagonal",
    },
    "hybrid_cosine_4000": {**IMPROVED, "loss": "hybrid"},
    "bound_cosine_4000": {**IMPROVED, "loss": "bound", "timesteps": "importance"},
}


def get_config(variant: str = "") -> ConfigDict:
    """Return the default of every key, or one of `VARIANTS`."""
    return with_variant(default_config(), VARIANTS, variant)
