"""A network and a schedule of a user's own, outside the package."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

import diffusion_jax as dj
from diffusion_jax.core.schedules import from_log_snr


class ConvNet(nn.Module):
    """Three convolutions that know the time.

    Fields:
        width: channels of the hidden layers.
        slope: slope of the activation below zero.
    """

    width: int = 8
    slope: float = 0.1

    @nn.compact
    def __call__(self, x, t):
        h = nn.Conv(self.width, (3, 3))(x)
        time = jnp.stack([jnp.sin(t / 100.0), jnp.cos(t / 100.0)], axis=-1)
        h = nn.leaky_relu(h + nn.Dense(self.width)(time)[:, None, None], self.slope)
        h = nn.leaky_relu(nn.Conv(self.width, (3, 3))(h), self.slope)
        return nn.Conv(x.shape[-1], (3, 3))(h)


dj.MODELS["convnet"] = ConvNet


def steep(steps: int, steepness: float = 12.0):
    """Let the log-SNR fall linearly, steeply.

    Args:
        steepness: by how much, to either side of 0.
    """
    return from_log_snr(np.linspace(steepness, -steepness, steps))


dj.SCHEDULES["steep"] = steep


def get_config():
    """Return the digits' config with this network."""
    return dj.config("digits", model={"name": "convnet", "width": 6}, schedule={"name": "steep"})
