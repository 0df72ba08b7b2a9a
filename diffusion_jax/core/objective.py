"""Training objectives: the loss per image of the network's output at a noised image.

To add a weight: write a function of the prediction that returns a float64 table `[T]`, the weight
of the squared error of x0, and add its line to `WEIGHTS`. To add a loss: write a function
like `weighted` and add its line to `LOSSES`. Their other arguments are keys at the top level of a
configuration.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffusion_jax.core.arrays import lookup, mean_event
from diffusion_jax.core.bound import term_nats
from diffusion_jax.core.gaussian import bits_per_dim
from diffusion_jax.core.predictions import Denoised, Network, Prediction, split_output
from diffusion_jax.core.process import ReverseProcess, q_sample
from diffusion_jax.core.tables import entry

BOUND_IN_HYBRID = 1e-3  # Nichol & Dhariwal 2021, eq. 16


def _simple(meaning: Prediction) -> np.ndarray:
    """Return (d / noise)^2, which gives the output's squared error the weight 1.

    For eps this is L_simple (Ho et al. 2020, eq. 14).
    """
    return np.square(meaning.d / meaning.schedule.noise)


def _bound(meaning: Prediction) -> np.ndarray:
    """Return (SNR_{t-1} - SNR_t) / 2, and 1 / (2 noise^2) for the decoder.

    (Kingma et al. 2021, eq. 13.)
    """
    snr = np.exp(meaning.schedule.log_snr)
    return 0.5 * np.append(1.0 / np.square(meaning.schedule.noise[0]), snr[:-1] - snr[1:])


def _snr(meaning: Prediction) -> np.ndarray:
    """Return the SNR, which makes the loss the squared error of eps, whatever is predicted."""
    return np.exp(meaning.schedule.log_snr)


def _truncated_snr(meaning: Prediction) -> np.ndarray:
    """Return max(SNR, 1) (Salimans & Ho 2022, section 4)."""
    return np.maximum(np.exp(meaning.schedule.log_snr), 1.0)


def _min_snr(meaning: Prediction, min_snr_gamma: float = 5.0) -> np.ndarray:
    """Return min(SNR, gamma) (Hang et al. 2023, section 3.4).

    Args:
        min_snr_gamma: the largest weight of the squared error of x0, above 0.
    """
    if min_snr_gamma <= 0.0:
        raise ValueError(f"min_snr_gamma is {min_snr_gamma:g}; it must be above 0")
    return np.minimum(np.exp(meaning.schedule.log_snr), min_snr_gamma)


WEIGHTS: dict[str, Callable[..., np.ndarray]] = {
    "simple": _simple,
    "bound": _bound,
    "snr": _snr,
    "truncated_snr": _truncated_snr,
    "min_snr": _min_snr,
}


class Model(NamedTuple):
    """The prediction, reverse process and settings that a loss needs besides the network.

    weight: a name in `WEIGHTS`, or a function like its entries.
    levels: number of levels of the data, for the discretised decoder.
    """

    meaning: Prediction
    reverse: ReverseProcess
    weight: str | Callable[[Prediction], np.ndarray]
    levels: int


def output_weight(meaning: Prediction, weight: Callable[[Prediction], np.ndarray]) -> np.ndarray:
    """Return the weight of the output's squared error, weight_t (noise/d)^2, float64 `[T]`."""
    return weight(meaning) * np.square(meaning.schedule.noise / meaning.d)


def _weighted(model: Model, prediction: jax.Array, x0, eps, t) -> jax.Array:
    """Compute weight_t |x0 - x0_hat|^2 = weight_t (noise/d)^2 |y - y_hat|^2."""
    meaning = model.meaning
    scale = output_weight(meaning, entry(WEIGHTS, model.weight))
    error = mean_event(jnp.square(prediction - meaning.target(x0, eps, t)), t)
    return lookup(scale, t, error) * error


def _bound_bits(model: Model, prediction: jax.Array, var_output, x0, eps, t) -> jax.Array:
    """Compute T times the bound's term at t in bits/dim: its mean over uniform t is the bound.

    The prior's term is left out, because it does not depend on the parameters.
    """
    meaning, dims = model.meaning, x0[0].size
    xt = q_sample(meaning.schedule, x0, t, eps)
    x0_hat, eps_hat = meaning.to_x0(prediction, xt, t), meaning.to_eps(prediction, xt, t)
    denoised = Denoised(x0_hat, eps_hat, var_output)
    nats = term_nats(model.reverse, denoised, x0, eps, t, model.levels)
    return meaning.schedule.steps * bits_per_dim(nats, dims)


def weighted(model: Model, output: jax.Array, x0, eps, t) -> jax.Array:
    """Compute the weighted squared error, mean over dimensions (Ho et al. 2020, eqs. 12 and 14)."""
    return _weighted(model, split_output(output, x0)[0], x0, eps, t)


def bound(model: Model, output: jax.Array, x0, eps, t, bound_per_step: bool = False) -> jax.Array:
    """Compute T times one term of the bound in bits/dim, to train means and variances alike.

    (Ho et al. 2020, eq. 5.)

    Args:
        bound_per_step: divide by T, as in Ho et al.'s code; `optimizer.clip_norm` depends on it.
    """
    bits = _bound_bits(model, *split_output(output, x0), x0, eps, t)
    return bits / model.meaning.schedule.steps if bound_per_step else bits


def hybrid(model: Model, output: jax.Array, x0, eps, t) -> jax.Array:
    """Compute weighted + 0.001 bound, where the bound's gradient reaches only the variances.

    (Nichol & Dhariwal 2021, eq. 16 and section 3.1.)
    """
    prediction, var_output = split_output(output, x0)
    held = jax.lax.stop_gradient(prediction)
    learned = BOUND_IN_HYBRID * _bound_bits(model, held, var_output, x0, eps, t)
    return _weighted(model, prediction, x0, eps, t) + learned


LOSSES: dict[str, Callable[..., jax.Array]] = {
    "weighted": weighted,
    "bound": bound,
    "hybrid": hybrid,
}


def training_loss(
    model: Model,
    loss: str | Callable[..., jax.Array],
    network: Network,
    x0: jax.Array,
    t: jax.Array,
    eps: jax.Array,
) -> jax.Array:
    """Compute the loss of each image at its step and noise.

    Args:
        loss: a name in `LOSSES`, or a function like its entries.
        network: `(x_t / scale, time) -> output`.
        x0, eps: `[b, h, w, c]`.
        t: int32 `[b]`.

    Returns:
        `[b]`.
    """
    output = model.meaning.ask(network, q_sample(model.meaning.schedule, x0, t, eps), t)
    return entry(LOSSES, loss)(model, output, x0, eps, t)
