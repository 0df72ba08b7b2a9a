"""Every data set by its name."""

from diffusion_jax.data import tfds_source
from diffusion_jax.data.arrays import open_arrays
from diffusion_jax.data.dataset import Dataset, Source
from diffusion_jax.data.digits import open_digits
from diffusion_jax.data.image_folder import open_image_folder
from diffusion_jax.errors import UserError, unknown_name

# Each is (split, directory, image_size, channels) -> Source; every other name is TFDS's.
DATASETS = {
    "arrays": open_arrays,
    "digits": open_digits,
    "image_folder": open_image_folder,
}


def open_source(
    name: str, split: str = "train", directory: str = "", image_size: int = 0, channels: int = 0
) -> Source:
    """Finds one split of a data set: one of DATASETS, or any image data set of TFDS.

    directory: where it lies. image_size, channels: what its images are to be made; 0 leaves them.
    Raises UserError for an unknown name or split, or data that are not as asked for.
    """
    if name in DATASETS:
        source = DATASETS[name](split, directory, image_size, channels)
    elif builder := tfds_source.find_prepared_builder(name, directory):
        source = tfds_source.open_builder(builder, split, image_size, channels)
    else:
        nearest = ", ".join(tfds_source.nearest_names(name)) or "none"
        known = unknown_name("data set", name, DATASETS)
        raise UserError(f"{known}, or any image data set of TFDS (nearest: {nearest})")
    height, width, depth = source.shape
    if image_size and (height, width) != (image_size, image_size):
        raise UserError(f"'{name}' is {height}x{width}; set --config.data.image_size=0")
    if channels and depth != channels:
        raise UserError(f"'{name}' has {depth} channels; set --config.data.channels=0")
    return source


def load_dataset(
    name: str, split: str = "train", directory: str = "", image_size: int = 0, channels: int = 0
) -> Dataset:
    """Reads what open_source finds."""
    return open_source(name, split, directory, image_size, channels).load()
