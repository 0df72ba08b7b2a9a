"""The configured data, schedule, prediction, reverse process and network."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from diffusion_jax.configuration import Config
from diffusion_jax.configuration.tables import (
    chosen,
    chosen_keywords,
    chosen_network,
    defined_by_user,
)
from diffusion_jax.core.predictions import Denoise, Prediction, denoiser, prediction
from diffusion_jax.core.process import ReverseProcess, is_learned, reverse_process
from diffusion_jax.core.schedules import Schedule, zero_terminal
from diffusion_jax.data.dataset import DataSpec, Source
from diffusion_jax.data.sources import open_source
from diffusion_jax.errors import UserError
from diffusion_jax.models import network
from diffusion_jax.models.packing import layout
from diffusion_jax.samplers.guidance import classifier_free

LEAST_NOISE = 1e-18  # its square, and the inverse of that, fit float32
PAPER_STEPS = 1000  # the network's time is t * 1000 / T: 0 .. 999 for the paper's T = 1000


class Guidance(NamedTuple):
    """The guidance scale, and the interval of times in which guidance acts."""

    scale: float
    interval: tuple[float, float]


class Diffusion(NamedTuple):
    """The diffusion model of a run: everything but parameters and data.

    model: the Flax module.
    network: `(params, x, time, label, dropout_keys) -> output`; the last two may be None.
    """

    data: DataSpec
    schedule: Schedule
    meaning: Prediction
    reverse: ReverseProcess
    model: Any
    network: Callable

    @property
    def classes(self) -> int:
        """The number of classes that the network knows, 0 if it is unconditional."""
        return getattr(self.model, "classes", 0)

    @property
    def shapes(self) -> Any:
        """The shapes of the network's parameters."""
        return network.parameter_shapes(self.model, self.data.shape)

    def init(self, key: jax.Array) -> Any:
        """Draw new parameters."""
        return network.init(self.model, key, self.data.shape)

    def denoise(
        self,
        params,
        label: jax.Array | None,
        clip: bool,
        grid: Schedule | None = None,
        guidance: "Guidance | None" = None,
    ) -> Denoise:
        """Return the denoiser with these parameters and labels `[b]`, without dropout.

        Its t indexes `grid`, by default the training steps.
        """
        meaning = self.meaning if grid is None else self.meaning.on(grid)

        def network(x, time, label=label):
            return self.network(params, x, time, label, None)

        if guidance is None:
            return denoiser(network, meaning, clip)
        if label is None:
            raise UserError("guidance needs a class for every image")
        return denoiser(classifier_free(network, label, self.classes, *guidance), meaning, clip)


def source(config: Config, split: str | None = None) -> Source:
    """Open a split of the configured data set, by default the training split."""
    data = config.data
    return open_source(
        data.name,
        split or data.split,
        data.dir,
        data.image_size,
        data.channels,
        data.background,
        data.exif,
        data.holdout,
    )


def schedule(config: Config, levels: int) -> Schedule:
    """Build the configured noise schedule for data of this number of levels.

    Raises:
        UserError: its numbers are out of range, its last step cannot be made pure noise, or float32
            cannot hold its variances.
    """
    try:
        made = chosen(config, "schedule.name", steps=config.schedule.steps, levels=levels)()
        made = zero_terminal(made) if config.schedule.zero_terminal else made
    except ValueError as error:
        raise UserError(f"config.schedule: {error}") from error
    extreme = np.flatnonzero((made.noise < LEAST_NOISE) | (made.noise > 1.0 / LEAST_NOISE))
    if extreme.size:
        raise UserError(
            f"config.schedule '{config.schedule.name}': the noise of step t = {extreme[0]} is "
            f"{made.noise[extreme[0]]:.3g}, whose square does not fit float32; choose levels of "
            f"noise from {LEAST_NOISE:g} to {1.0 / LEAST_NOISE:g}"
        )
    return made


def diffusion(config: Config, data: DataSpec) -> Diffusion:
    """Build schedule, prediction and network for data of this shape.

    Raises:
        UserError: a size does not fit, the classes do not match the data.
    """
    classes = config.model.get("classes", 0)
    if classes and not data.classes:
        raise UserError(
            f"config.model.classes is {classes}, but the images have no labels; give labels, or "
            "use a config without classes"
        )
    if classes not in (0, data.classes):
        raise UserError(
            f"config.model.classes is {classes}, but the data has {data.classes}; "
            f"set it to {data.classes} or 0"
        )
    noising = schedule(config, data.levels)
    try:
        arguments = chosen_keywords(config, "prediction")
        meaning = prediction(config.prediction, noising, **arguments)
    except ValueError as error:
        raise UserError(f"config.schedule '{config.schedule.name}': {error}") from error
    variance = chosen(config, "variance")
    try:
        reverse = reverse_process(noising, variance, chosen(config, "decoder"))
    except ValueError as error:
        raise UserError(f"config.decoder on {noising.steps} steps: {error}") from error
    outputs = data.shape[-1] * (2 if is_learned(variance) else 1)
    model = chosen_network(config, outputs)
    _check_call(config.model.name, model, data.shape)
    output = _network(config.model.name, model, noising.steps, outputs)
    return Diffusion(data, noising, meaning, reverse, model, output)


def _check_call(name: str, model: Any, shape: tuple[int, int, int]) -> None:
    """Refuse a network that cannot be called, and images of a size that it does not take."""
    try:
        network.parameter_shapes(model, shape)
    except TypeError as error:
        if not defined_by_user(type(model)):
            raise
        raise UserError(
            f"the network '{name}' cannot be called with images x {[1, *shape]} and times t [1]: "
            f"{str(error).splitlines()[0]}"
        ) from error


def _network(name: str, model: Any, steps: int, outputs: int) -> Callable:
    def output(params, x, time, label, dropout_keys):
        label = label if getattr(model, "classes", 0) else None
        y = network.apply(model, params, x, time * (PAPER_STEPS / steps), label, dropout_keys)
        if y.shape != (*x.shape[:-1], outputs):
            raise UserError(
                f"the network '{name}' returns {list(y.shape)} for images {list(x.shape)}; "
                f"expected {[*x.shape[:-1], outputs]}"
            )
        return y

    return output


def about(config: Config, diffusion: Diffusion) -> dict[str, str]:
    """Describe what a run's parameters mean, for comparison with saved checkpoints."""
    steps = diffusion.schedule.steps
    some = diffusion.schedule.log_snr[np.linspace(0, steps - 1, 5).astype(int)]
    return {
        "schedule": f"of {steps} steps with log-SNR {', '.join(f'{each:.6g}' for each in some)}",
        "prediction": config.prediction,
        "variance": config.variance if is_learned(chosen(config, "variance")) else "fixed",
        "small parameters": layout(diffusion.shapes),
    }
