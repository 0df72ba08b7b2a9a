"""Training objectives: the weighted squared error of the network's own output, and how t is drawn.

To add a weight: write a function of the schedule and the prediction that returns a float64 table
`[T]`, the weight of the squared error of x0, and add its line to `WEIGHTS`.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from diffusion_jax.core.arrays import at, mean_event
from diffusion_jax.core.keys import image_keys
from diffusion_jax.core.predictions import Prediction
from diffusion_jax.core.process import q_sample
from diffusion_jax.core.schedules import Schedule


def _simple(schedule: Schedule, meaning: Prediction) -> np.ndarray:
    """(d / noise)^2: weight one on the output; for eps, L_simple (Ho et al. 2020, eq. 14)."""
    return np.square(meaning.d / meaning.noise)


def _bound(schedule: Schedule, meaning: Prediction) -> np.ndarray:
    """(SNR_{t-1} - SNR_t) / 2, and 1 / (2 noise^2) for the decoder (Kingma et al. 2021, eq. 13)."""
    snr = np.exp(schedule.log_snr)
    return 0.5 * np.append(1.0 / np.square(schedule.noise[0]), snr[:-1] - snr[1:])


def _snr(schedule: Schedule, meaning: Prediction) -> np.ndarray:
    return np.exp(schedule.log_snr)


def _truncated_snr(schedule: Schedule, meaning: Prediction) -> np.ndarray:
    """max(SNR, 1) (Salimans & Ho 2022, section 4)."""
    return np.maximum(np.exp(schedule.log_snr), 1.0)


def _min_snr(schedule: Schedule, meaning: Prediction) -> np.ndarray:
    """min(SNR, 5) (Hang et al. 2023, section 3.4)."""
    return np.minimum(np.exp(schedule.log_snr), 5.0)


WEIGHTS = {
    "simple": _simple,
    "bound": _bound,
    "snr": _snr,
    "truncated_snr": _truncated_snr,
    "min_snr": _min_snr,
}


def training_loss(
    schedule: Schedule,
    meaning: Prediction,
    weight: str,
    network: Callable[[jax.Array, jax.Array], jax.Array],
    x0: jax.Array,
    t: jax.Array,
    eps: jax.Array,
) -> jax.Array:
    """Weighted squared error of x0 per image, averaged over dimensions, taken on the output.

    weight_t |x0 - x0_hat|^2 = weight_t (noise/d)^2 |y - y_hat|^2; the factor is made in float64.

    Args:
        network: `(x_t, t) -> output`.
        x0, eps: `[b, h, w, c]`.
        t: int32 `[b]`.

    Returns:
        `[b]`.
    """
    scale = WEIGHTS[weight](schedule, meaning) * np.square(meaning.noise / meaning.d)
    output = network(q_sample(schedule, x0, t, eps), t)
    error = mean_event(jnp.square(output - meaning.target(x0, eps, t)), t)
    return at(scale, t, error) * error


def uniform_t(key: jax.Array, index: jax.Array, batch: int, steps: int) -> jax.Array:
    """Draw t uniformly and independently for each image.

    Args:
        key: one key for the whole batch, on all devices.
        index: int32 `[b]`, positions in the whole batch of the images at hand.
        batch: size of the whole batch.
        steps: T.

    Returns:
        int32 `[b]`, 0-based.
    """
    draw = jax.vmap(lambda each: jax.random.randint(each, (), 0, steps))
    return draw(image_keys(key, index))


def stratified_t(key: jax.Array, index: jax.Array, batch: int, steps: int) -> jax.Array:
    """Draw t evenly over the batch: floor(T frac(u + i/batch)), with one u for the whole batch.

    Each t is uniform on its own, so the loss stays unbiased, with less variance (Kingma et al.
    2021, appendix I.1). Arguments as in `uniform_t`.
    """
    position = jnp.mod(jax.random.uniform(key) + index / batch, 1.0)
    return jnp.minimum((position * steps).astype(jnp.int32), steps - 1)


TIMESTEPS = {"stratified": stratified_t, "uniform": uniform_t}
