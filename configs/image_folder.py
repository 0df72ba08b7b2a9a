"""Your own pictures: a folder of image files, cropped and resized to 64x64.

Command: python train.py --config=configs/image_folder.py --config.data.dir=FOLDER
Hardware: a GPU or TPU. The variant `small`, at 32x32, has a network for two CPU cores.
Result: depends on the pictures; not yet measured. After 1000 of its 1500 steps on 60 images of
CIFAR-10, samples of `small` have the images' colours but no objects yet.
"""

from ml_collections import ConfigDict

from diffusion_jax.configuration import default_config, with_variant

# `small` is a first look at a few dozen pictures on two CPU cores.
VARIANTS = {
    "small": {
        "data": {"image_size": 32},
        "schedule": {"name": "log_snr"},
        "prediction": "v",
        "model": {
            "channels": 32,
            "multipliers": (1, 2, 2),
            "blocks": 1,
            "attention_resolutions": (8,),
            "dropout": 0.0,
        },
        "optimizer": {"learning_rate": 2e-3, "warmup_steps": 100, "decay": "cosine"},
        "ema": {"decay": 0.99},
        "train": {
            "batch_size": 16,
            "steps": 1500,
            "log_every": 100,
            "save_every": 500,
            "sample_every": 500,
        },
        "sample": {"num": 16, "sampler": "dpmpp_2m", "grid": "log_snr", "steps": 20},
    }
}


def get_config(variant: str = "") -> ConfigDict:
    """Return the default recipe for 64x64 RGB images.

    For another size add --config.data.image_size=32, for greyscale --config.data.channels=1.
    """
    config = default_config()
    config.name = "image_folder"
    config.data.update({"name": "image_folder", "image_size": 64})
    config.train.update({"batch_size": 64, "steps": 200_000})
    return with_variant(config, VARIANTS, variant)
