"""Fashion-MNIST: clothes in the format of MNIST, with the same network.

Command: python train.py --config=configs/fashion_mnist.py [--config.data.dir=FOLDER]
Result: not yet measured; see configs/mnist.py.
"""

from ml_collections import ConfigDict

from diffusion_jax.configuration import load


def get_config() -> ConfigDict:
    """Return MNIST's recipe with flips: unlike digits, clothes may be mirrored."""
    config = load("mnist")
    config.name = config.data.name = "fashion_mnist"
    config.data.flip = True
    return config
