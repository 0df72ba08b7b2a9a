"""What a certificate is about: the functions that a configuration chooses, without its network."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from diffusion_jax import build
from diffusion_jax.configuration import Config
from diffusion_jax.configuration.tables import chosen, chosen_keywords
from diffusion_jax.core.objective import Model
from diffusion_jax.core.predictions import Prediction, prediction
from diffusion_jax.core.process import ReverseProcess, reverse_process
from diffusion_jax.core.schedules import Schedule
from diffusion_jax.core.timesteps import Timesteps
from diffusion_jax.errors import UserError
from diffusion_jax.samplers.base import Sampler
from diffusion_jax.truth import exact

MEAN, VAR = 0.3, 0.16  # of the Gaussian data


class Subject(NamedTuple):
    """The chosen functions, and the data that they are held against.

    model: what a loss needs: prediction, reverse process, weight, levels.
    weight: weights of the squared error of x0, float64 `[T]`.
    probability: of each level of the discrete data, float64 `[levels]`.
    """

    config: Config
    schedule: Schedule
    meaning: Prediction
    reverse: ReverseProcess
    model: Model
    weight: np.ndarray
    loss: Callable[..., Any]
    timesteps: Timesteps
    sampler: Sampler
    grid: Callable[[Schedule, int], Schedule]
    probability: np.ndarray

    @property
    def levels(self) -> int:
        """The number of levels of the discrete data."""
        return len(self.probability)

    @property
    def values(self) -> np.ndarray:
        """The levels in [-1, 1], float64 `[levels]`."""
        return np.linspace(-1.0, 1.0, self.levels)

    @property
    def points(self) -> exact.Mixture:
        """The discrete data as a mixture of points."""
        some = np.flatnonzero(self.probability)
        values = self.values[some]
        return exact.mixture(self.probability[some], values[:, None], np.zeros((len(some), 1, 1)))

    @property
    def entropy(self) -> float:
        """The entropy of the discrete data, in nats."""
        p = self.probability[self.probability > 0.0]
        return float(-np.sum(p * np.log(p)))

    def name(self, key: str) -> str:
        """Return how a law names the function under a key: `schedule cosine`."""
        group, _, leaf = key.rpartition(".")
        value = (self.config[group] if group else self.config)[leaf]
        return f"{leaf if leaf != 'name' else group} {value}"


def subject(config: Config, levels: int = 256) -> Subject:
    """Build what a configuration chooses, for 1-D data of two bumps on this number of levels.

    Raises:
        UserError: the configuration is wrong.
    """
    schedule = build.schedule(config, levels)
    try:
        meaning = prediction(config.prediction, schedule, **chosen_keywords(config, "prediction"))
        reverse = reverse_process(schedule, chosen(config, "variance"), chosen(config, "decoder"))
        weight = chosen(config, "weight")
        weights = np.asarray(weight(meaning), np.float64)
    except ValueError as error:
        raise UserError(f"config: {error}") from error
    return Subject(
        config,
        schedule,
        meaning,
        reverse,
        Model(meaning, reverse, weight, levels),
        weights,
        chosen(config, "loss"),
        chosen(config, "timesteps")(schedule.steps),
        chosen(config, "sample.sampler", variance=chosen(config, "variance"))(),
        chosen(config, "sample.grid"),
        two_bumps(levels),
    )


def two_bumps(levels: int) -> np.ndarray:
    """Return the probabilities of 0.4 N(-0.5, 0.15^2) + 0.6 N(0.4, 0.2^2) on the levels."""
    x = np.linspace(-1.0, 1.0, levels)
    density = 0.4 / 0.15 * np.exp(-0.5 * np.square((x + 0.5) / 0.15))
    density += 0.6 / 0.2 * np.exp(-0.5 * np.square((x - 0.4) / 0.2))
    return density / density.sum()
