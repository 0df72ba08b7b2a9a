"""The configured training loss, first state and training step.

Inside the training state, small parameters are packed into one array: see `models.packing`.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import optax

from diffusion_jax.build.model import Diffusion
from diffusion_jax.configuration import Config
from diffusion_jax.configuration.tables import chosen
from diffusion_jax.core.arrays import overflowing
from diffusion_jax.core.objective import Model, output_weight
from diffusion_jax.core.timesteps import Timesteps
from diffusion_jax.errors import UserError
from diffusion_jax.models.packing import pack, unpack
from diffusion_jax.training import optimizer as optimizers
from diffusion_jax.training.state import create
from diffusion_jax.training.step import Loss, Step, make_loss, make_step


def timesteps(config: Config, diffusion: Diffusion) -> Timesteps:
    """Return how training draws t."""
    return chosen(config, "timesteps")(diffusion.schedule.steps)


def loss(config: Config, diffusion: Diffusion) -> Loss:
    """Build the configured training loss `(params, memory, step, batch) -> (scalar, Losses)`.

    Raises:
        UserError: an argument of the weight is out of range, or the weight is not finite.
    """
    weight = chosen(config, "weight")
    try:
        infinite = overflowing(output_weight(diffusion.meaning, weight))
    except ValueError as error:
        raise UserError(f"config.{error}") from error
    if infinite.size:
        raise UserError(
            f"config.weight '{config.weight}' is not finite at step t = {infinite[0]} in float32; "
            "set another weight, such as 'simple'"
        )
    return make_loss(
        Model(diffusion.meaning, diffusion.reverse, weight, diffusion.data.levels),
        chosen(config, "loss"),
        diffusion.network,
        timesteps(config, diffusion),
        flip=config.data.flip,
        no_label=diffusion.classes,
        label_dropout=config.train.label_dropout,
        seed=config.seed,
        batch_size=config.train.batch_size,
    )


class Training(NamedTuple):
    """The initial state and the step of a run's training.

    init: `(key) -> initial state`, jitted.
    make_step: `(axis_name=, whole=) -> step`, as `devices.sharding.data_parallel` takes it.
    """

    init: Any
    make_step: Callable[..., Step]


def learning_rate(config: Config) -> optax.Schedule:
    """Build the configured schedule of the learning rate."""
    decay = chosen(config, "optimizer.decay")
    peak = config.optimizer.learning_rate
    warmup = config.optimizer.warmup_steps
    return optimizers.learning_rate(peak, warmup, decay, config.train.steps)


def training(config: Config, diffusion: Diffusion) -> Training:
    """Build initial state and step from the configured loss, optimiser and average."""
    part, rate = config.optimizer, learning_rate(config)
    optimizer = optimizers.optimizer(
        rate, part.b1, part.b2, part.eps, part.weight_decay, part.clip_norm
    )
    drawing, of_network = timesteps(config, diffusion), loss(config, diffusion)

    def of_packed(params, *rest):
        return of_network(unpack(params, diffusion.shapes), *rest)

    return Training(
        init=jax.jit(lambda key: create(pack(diffusion.init(key)), optimizer, drawing)),
        make_step=partial(
            make_step,
            of_packed,
            drawing,
            optimizer,
            rate,
            config.ema.decay,
            config.train.accumulate,
            ema_warmup=config.ema.warmup,
        ),
    )
