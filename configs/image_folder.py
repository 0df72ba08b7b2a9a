"""Your own pictures: a folder of PNG or JPEG files, cropped and resized to 64x64.

Command: python train.py --config=configs/image_folder.py --config.data.dir=FOLDER
Hardware: a GPU or TPU.
Result: depends on the pictures; not yet measured.
"""

from ml_collections import ConfigDict

from diffusion_jax.configuration import default_config


def get_config() -> ConfigDict:
    """Return the default recipe for 64x64 RGB images.

    For another size add --config.data.image_size=32, for greyscale --config.data.channels=1.
    """
    config = default_config()
    config.name = "image_folder"
    config.data.update({"name": "image_folder", "image_size": 64})
    config.train.update({"batch_size": 64, "steps": 200_000})
    return config
