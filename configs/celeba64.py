"""CelebA faces, centre crop, 64x64.

Command: python train.py --config=configs/celeba64.py --config.data.dir=FOLDER
FOLDER holds the aligned images as files (for example img_align_celeba/*.jpg), preferably in
subfolders `train` and `test`; see "Data" in the README.
Hardware: a TPU v3-8 or a large GPU.
Result: not yet measured.
"""

from ml_collections import ConfigDict

from diffusion_jax.configuration import load


def get_config() -> ConfigDict:
    """Return a config with five levels down to 4x4, and attention at 16x16."""
    config = load("image_folder")
    config.name = "celeba64"
    config.model.update({"multipliers": (1, 2, 2, 2, 4)})
    config.train.update({"steps": 500_000})
    return config
