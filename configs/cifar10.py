"""CIFAR-10 as in DDPM (Ho et al. 2020, section 4 and appendix B): 35,746,307 parameters.

Command: python train.py --config=configs/cifar10.py[:variant] [--config.data.dir=FOLDER]
Hardware: the paper used a TPU v3-8: 21 steps/s, 800,000 steps in 10.6 hours.
Result: not yet measured here; the paper reports 3.75 bits/dim and an FID of 3.17 for eps_simple,
3.70 and 13.51 for eps_bound.

Variants: the rows of DDPM's table 2 (what is predicted, what is minimised), and Improved DDPM's
two runs on a cosine schedule of 4000 steps (Nichol & Dhariwal 2021).
"""

from ml_collections import ConfigDict

from diffusion_jax.configuration import default_config, with_variant

# Nichol & Dhariwal's network and learning rate; their L_vlb run draws t by importance.
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
    """Return the paper's recipe, which is the default of every key, or one of `VARIANTS`."""
    return with_variant(default_config(), VARIANTS, variant)
