"""DDPM on CIFAR-10 as published (Ho et al. 2020): the rows of its table 2.

Command: python train.py --config=configs/ddpm.py[:variant] [--config.data.dir=FOLDER]
Hardware: the paper used a TPU v3-8: 21 steps/s, 800,000 steps in 10.6 hours.
Result: not yet measured here; published: 3.75 bits/dim and FID 3.17 for eps_simple, which is also
the config without a variant, 3.70 and 13.51 for eps_bound.

Values are those of the authors' code, github.com/hojonathanho/diffusion at commit 1e0dceb;
tests/test_recipes.py compares them, fact by fact with its source. What still differs:

| | as published | here | why |
|---|---|---|---|
| clipping | each TPU core's, of 16 images | of the whole batch's | any number of devices |
| Adam's epsilon | 1e-8 / sqrt(1 - b2^n) at update n (TensorFlow 1) | 1e-8 | Optax |
| last layers of blocks | start at 1e-5 times the usual size | at 0 | simpler |
| decoder's bins | normal CDF by tanh, at least 1e-12 | exact | 3e-5 bits/dim at their distortion |
| bits/dim | in float32 | variances in float64 | exactness |
| images | drawn from a buffer of 50,000 | a new permutation every epoch | resuming |
| variance of the L rows | "fixed isotropic", which one is not said | beta | the code's default |
"""

from ml_collections import ConfigDict

from diffusion_jax.configuration import changed, default_config, with_variant

DDPM = {
    "name": "ddpm",
    "data": {"name": "cifar10", "split": "train", "channels": 3, "image_size": 0, "flip": True},
    "schedule": {"name": "linear", "steps": 1000, "beta_start": 1e-4, "beta_end": 0.02},
    "prediction": "eps",
    "variance": "fixed_large",
    "decoder": "clipped",
    "loss": "weighted",
    "weight": "simple",
    "timesteps": "uniform",
    "model": {
        "channels": 128,
        "multipliers": (1, 2, 2, 2),
        "blocks": 2,
        "attention_resolutions": (16,),
        "heads": 1,
        "dropout": 0.1,
        "scale_shift_norm": False,
        "resample_in_blocks": False,
        "dtype": "float32",
    },
    "optimizer": {
        "learning_rate": 2e-4,
        "warmup_steps": 5000,
        "shorten_warmup": False,
        "decay": "constant",
        "b1": 0.9,
        "b2": 0.999,
        "eps": 1e-8,
        "weight_decay": 0.0,
        "clip_norm": 1.0,
    },
    "ema": {"decay": 0.9999, "warmup": False},
    "train": {"steps": 800_000, "batch_size": 128},
    "sample": {"sampler": "ancestral", "steps": 0, "clip": True},
}

BOUND = {"loss": "bound", "bound_per_step": True}
LEARNED = {"variance": "learned_log_variance", "decoder": "unit"}
# The code clips the predicted x0, from which the mean does not follow where it is predicted itself.
MEAN = {"prediction": "mean", "sample": {"clip": False}}

VARIANTS = {
    "eps_simple": {},
    "eps_bound": BOUND,
    "eps_bound_learned_variance": {**BOUND, **LEARNED},
    "mean_simple": MEAN,
    "mean_bound": {**MEAN, **BOUND},
    "mean_bound_learned_variance": {**MEAN, **BOUND, **LEARNED},
}


def get_config(variant: str = "") -> ConfigDict:
    """Return the paper's best run, eps_simple, or one of `VARIANTS`."""
    return with_variant(changed(default_config(), DDPM), VARIANTS, variant)
