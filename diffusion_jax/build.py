"""Build objects from a configuration: the only place where a name in a config becomes code.

The configuration must have passed `config.check.check`.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from diffusion_jax.config import Config
from diffusion_jax.config.keys import call
from diffusion_jax.core.objective import Model
from diffusion_jax.core.predictions import Denoise, Prediction, denoiser, prediction
from diffusion_jax.core.process import VARIANCES, ReverseProcess, reverse_process
from diffusion_jax.core.schedules import SCHEDULES, Schedule
from diffusion_jax.core.timesteps import TIMESTEPS, Timesteps
from diffusion_jax.data.dataset import DataSpec, Source
from diffusion_jax.data.sources import open_source
from diffusion_jax.errors import UserError
from diffusion_jax.models import network
from diffusion_jax.models.packing import layout, pack, unpack
from diffusion_jax.models.unet import UNet, check_image_size
from diffusion_jax.samplers.guidance import classifier_free
from diffusion_jax.training import optimizer as optimizers
from diffusion_jax.training.state import create
from diffusion_jax.training.step import Loss, Step, make_loss, make_step

PAPER_STEPS = 1000  # the network's time is t * 1000 / T: 0 .. 999 for the paper's T = 1000


class Guidance(NamedTuple):
    """The guidance scale, and the interval of times in which guidance acts."""

    scale: float
    interval: tuple[float, float]


class Diffusion(NamedTuple):
    """The diffusion model of a run: everything but parameters and data.

    network: `(params, x, time, label, dropout_keys) -> output`; the last two may be None. Its
        parameters are those that `init` draws, the small ones packed into one array.
    """

    data: DataSpec
    schedule: Schedule
    meaning: Prediction
    reverse: ReverseProcess
    model: UNet
    network: Callable

    def init(self, key: jax.Array):
        """Draw new parameters, packed as `network` takes them."""
        return pack(network.init(self.model, key, self.data.shape))

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
        none = self.model.classes
        return denoiser(classifier_free(network, label, none, *guidance), meaning, clip)


def source(config: Config, split: str | None = None) -> Source:
    """Open a split of the configured data set, by default the training split."""
    data = config.data
    return open_source(data.name, split or data.split, data.dir, data.image_size, data.channels)


def schedule(config: Config, levels: int) -> Schedule:
    """Build the configured noise schedule for data of this number of levels.

    Raises:
        UserError: its numbers are out of range.
    """
    given = {**config.schedule.to_dict(), "levels": levels}
    try:
        return call(SCHEDULES[config.schedule.name], given)
    except ValueError as error:
        raise UserError(f"config.schedule: {error}") from error


def diffusion(config: Config, data: DataSpec) -> Diffusion:
    """Build schedule, prediction and network for data of this shape.

    Raises:
        UserError: a size does not fit, the classes do not match the data.
    """
    if config.model.classes not in (0, data.classes):
        raise UserError(
            f"config.model.classes is {config.model.classes}, but the data has {data.classes}; "
            f"set it to {data.classes} or 0"
        )
    noising = schedule(config, data.levels)
    try:
        meaning = prediction(config.prediction, noising)
    except ValueError as error:
        raise UserError(f"config.schedule '{config.schedule.name}': {error}") from error
    try:
        reverse = reverse_process(noising, config.variance, config.decoder)
    except ValueError as error:
        raise UserError(f"config.schedule.steps is {noising.steps}: {error}") from error
    outputs = 2 if VARIANCES[config.variance].learned else 1
    model = UNet(out_channels=outputs * data.shape[-1], **config.model)
    check_image_size(*data.shape[:2], levels=len(config.model.multipliers))
    output = _network(model, data.shape, noising.steps)
    return Diffusion(data, noising, meaning, reverse, model, output)


def _network(model: UNet, image_shape: tuple[int, ...], steps: int) -> Callable:
    def output(params, x, time, label, dropout_keys):
        params = unpack(params, network.parameter_shapes(model, image_shape))
        label = label if model.classes else None
        return network.apply(model, params, x, time * (PAPER_STEPS / steps), label, dropout_keys)

    return output


def timesteps(config: Config, diffusion: Diffusion) -> Timesteps:
    """Return how training draws t."""
    return TIMESTEPS[config.timesteps](diffusion.schedule.steps)


def loss(config: Config, diffusion: Diffusion) -> Loss:
    """Build the configured training loss `(params, memory, step, batch) -> (scalar, Losses)`."""
    return make_loss(
        Model(diffusion.meaning, diffusion.reverse, config.weight, diffusion.data.levels),
        config.loss,
        diffusion.network,
        timesteps(config, diffusion),
        flip=config.data.flip,
        no_label=config.model.classes,
        label_dropout=config.train.label_dropout,
        seed=config.seed,
        batch_size=config.train.batch_size,
    )


def about(config: Config, diffusion: Diffusion) -> dict[str, str]:
    """Describe what a run's parameters mean, for comparison with saved checkpoints."""
    steps = diffusion.schedule.steps
    some = diffusion.schedule.log_snr[np.linspace(0, steps - 1, 5).astype(int)]
    return {
        "schedule": f"of {steps} steps with log-SNR {', '.join(f'{each:.6g}' for each in some)}",
        "prediction": config.prediction,
        "variance": config.variance if VARIANCES[config.variance].learned else "fixed",
        "small parameters": layout(network.parameter_shapes(diffusion.model, diffusion.data.shape)),
    }


class Training(NamedTuple):
    """The initial state and the step of a run's training.

    init: `(key) -> initial state`, jitted.
    make_step: `(axis_name=, whole=) -> step`, as `devices.sharding.data_parallel` takes it.
    """

    init: Any
    make_step: Callable[..., Step]


def training(config: Config, diffusion: Diffusion) -> Training:
    """Build initial state and step from the configured loss, optimiser and average."""
    part = config.optimizer
    decay = optimizers.DECAYS[part.decay]
    rate = optimizers.learning_rate(
        part.learning_rate, part.warmup_steps, decay, config.train.steps
    )
    optimizer = optimizers.optimizer(
        rate, part.b1, part.b2, part.eps, part.weight_decay, part.clip_norm
    )
    drawing = timesteps(config, diffusion)
    return Training(
        init=jax.jit(lambda key: create(diffusion.init(key), optimizer, drawing)),
        make_step=partial(
            make_step,
            loss(config, diffusion),
            drawing,
            optimizer,
            rate,
            config.ema.decay,
            config.train.accumulate,
        ),
    )
