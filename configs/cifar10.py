"""CIFAR-10 as in DDPM (Ho et al. 2020, section 4 and appendix B): 35,746,307 parameters.

Command: python train.py --config=configs/cifar10.py [--config.data.dir=FOLDER]
Hardware: the paper used a TPU v3-8: 21 steps/s, 800,000 steps in 10.6 hours.
Result: not yet measured here; the paper reports 3.75 bits/dim and an FID of 3.17.
"""

from ml_collections import ConfigDict

from configs import default


def get_config() -> ConfigDict:
    """The paper's recipe, which is the default of every key."""
    return default.get_config()
