"""All keys, with the values of DDPM's CIFAR-10 recipe (Ho et al. 2020, appendix B).

The other files start from this one. Keys are locked: a misspelt one is an error.
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_config() -> ConfigDict:
    """Return the full tree of keys; see `docs/configuration.md` for what each does."""
    return ConfigDict(
        {
            "name": "cifar10",
            "seed": 0,
            "parallel": "jit",
            "profile": "",
            "data": {
                "name": "cifar10",
                "dir": "",
                "split": "train",
                "image_size": 0,
                "channels": 3,
                "flip": True,
                "stream": False,
                "workers": 0,
            },
            "schedule": {
                "name": "linear",
                "steps": 1000,
                "beta_start": 1e-4,
                "beta_end": 0.02,
                "log_snr_max": placeholder(float),
                "log_snr_min": -10.0,
                "noise_min": 0.01,
                "noise_max": 10.0,
                "betas": (),
            },
            "prediction": "eps",
            "variance": "fixed_large",
            "decoder": "first_noise",
            "loss": "weighted",
            "weight": "simple",
            "timesteps": "stratified",
            "model": {
                "channels": 128,
                "multipliers": (1, 2, 2, 2),
                "blocks": 2,
                "attention_resolutions": (16,),
                "heads": 1,
                "dropout": 0.1,
                "classes": 0,
                "scale_shift_norm": False,
                "resample_in_blocks": False,
                "dtype": "float32",
                "remat": False,
            },
            "optimizer": {
                "learning_rate": 2e-4,
                "warmup_steps": 5000,
                "decay": "constant",
                "b1": 0.9,
                "b2": 0.999,
                "eps": 1e-8,
                "weight_decay": 0.0,
                "clip_norm": 1.0,
            },
            "ema": {"decay": 0.9999},
            "train": {
                "steps": 800_000,
                "minutes": 0.0,
                "batch_size": 128,
                "log_every": 100,
                "save_every": 5000,
                "sample_every": 5000,
                "keep": 3,
                "keep_every": 0,
                "keep_best": 0,
                "accumulate": 1,
                "max_skipped": 20,
                "label_dropout": 0.0,
            },
            "sample": {
                "num": 64,
                "batch_size": 0,
                "steps": 0,
                "clip": True,
                "sampler": "ancestral",
                "grid": "uniform",
                "eta": 0.0,
                "churn": 40.0,
                "langevin_steps": 1,
                "langevin_rate": 0.1,
                "guidance": 1.0,
                "guidance_interval": (0.0, 1.0),
                "jump": 10,
                "repeats": 5,
            },
        }
    ).lock()


def change(config: ConfigDict, variants: dict[str, dict], variant: str) -> ConfigDict:
    """Apply a variant to a configuration and add it to its name; '' changes nothing."""
    if variant:
        if variant not in variants:
            raise ValueError(f"no variant '{variant}'; there are: {', '.join(variants)}")
        config.update(variants[variant])
        config.name = f"{config.name}_{variant}"
    return config
