"""Embeddings of time and class."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from diffusion_jax.errors import UserError
from diffusion_jax.models.layers import dense

MAX_PERIOD = 10_000


def sinusoidal_embedding(t: jax.Array, size: int) -> jax.Array:
    """Encode times sinusoidally, as DDPM does.

    [sin(w_0 t), ..., sin(w_{k-1} t), cos(w_0 t), ..., cos(w_{k-1} t)], with k = size / 2 and
    w_i = 10000^(-i / (k - 1)): the last frequency is exactly 1/10000, unlike the Transformer's.

    Args:
      t: float32 [b], in the paper's units (0 to 999).
      size: length of the encoding, even and at least 4.

    Returns:
      float32 [b, size].

    Source: Vaswani et al. 2017, section 3.5; Ho et al. 2020, appendix B.
    """
    half = size // 2
    frequencies = np.exp(-np.log(MAX_PERIOD) * np.arange(half) / (half - 1))
    angles = t.astype(jnp.float32)[:, None] * jnp.asarray(frequencies, jnp.float32)
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)


class Condition(nn.Module):
    """The conditioning vector of every residual block: time and, if there are classes, class.

    dense(swish(dense(sinusoidal(t)))) + table[label], float32 [b, 4 * channels]. The table has one
    row more than there are classes; the last row means "no class".

    Source: Ho et al. 2020, appendix B; Dhariwal & Nichol 2021, section 3; Ho & Salimans 2022.
    """

    channels: int
    classes: int

    @nn.compact
    def __call__(self, t: jax.Array, label: jax.Array | None) -> jax.Array:
        size = 4 * self.channels
        h = sinusoidal_embedding(t, self.channels)
        h = nn.swish(dense(size, name="time_0")(h))
        h = dense(size, name="time_1")(h)
        if not self.classes:
            if label is not None:
                raise UserError("the network got labels but has no classes; set model.classes")
            return h
        if label is None:
            label = jnp.full(t.shape, self.classes, jnp.int32)
        unit_normal = nn.initializers.normal(1.0)
        table = nn.Embed(self.classes + 1, size, embedding_init=unit_normal, name="label")
        return h + table(label)
