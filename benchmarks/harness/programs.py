"""Our own programs on random images, from a config and a batch size: no data set is needed."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.harness import operations
from diffusion_jax import build
from diffusion_jax.config import Config
from diffusion_jax.core.keys import Stream, stream_key
from diffusion_jax.data.dataset import DataSpec
from diffusion_jax.devices import sharding
from diffusion_jax.devices.compiler import compiler_options
from diffusion_jax.errors import UserError
from diffusion_jax.models.network import parameter_count
from diffusion_jax.training.step import Batch

KNOWN = {
    "digits": DataSpec((8, 8, 1), 17, 10),
    "mnist": DataSpec((28, 28, 1), 256, 10),
    "fashion_mnist": DataSpec((28, 28, 1), 256, 10),
    "cifar10": DataSpec((32, 32, 3), 256, 10),
}


class Program(NamedTuple):
    """Something compiled that can be called again and again.

    flops: operations of one call, as `operations.count` counts them.
    """

    call: Callable[[], Any]
    compiled: Any
    flops: int


class Job(NamedTuple):
    """A config with what it builds and random images."""

    settings: Config
    data: DataSpec
    diffusion: build.Diffusion

    @property
    def batch(self) -> Batch:
        """One whole batch on the host."""
        size, rng = self.settings.train.batch_size, np.random.default_rng(0)
        images = rng.integers(self.data.levels, size=(size, *self.data.shape)).astype(np.uint8)
        labels = rng.integers(max(self.data.classes, 1), size=size).astype(np.int32)
        return Batch(images, labels, np.arange(size, dtype=np.int32))

    @property
    def training(self) -> build.Training:
        """Loss, optimiser and average."""
        return build.training(self.settings, self.diffusion)

    @property
    def parameters(self) -> int:
        """Of the network."""
        return parameter_count(jax.eval_shape(self.diffusion.init, jax.random.key(0)))

    def placed(self, *arrays: Any) -> tuple[Any, ...]:
        """Fresh parameters on every device, and arrays split over them image by image."""
        sharding.check_batch(self.settings.train.batch_size, jax.device_count())
        layout = sharding.shardings(jax.devices())
        params = jax.device_put(self.diffusion.init(jax.random.key(0)), layout.replicated)
        return params, *jax.device_put(arrays, layout.split)


def data_spec(settings: Config) -> DataSpec:
    """Shape, levels and classes of the config's images, without looking for them.

    Raises:
        UserError: only the data would tell.
    """
    data = settings.data
    if data.name in KNOWN:
        return KNOWN[data.name]
    if not data.image_size:
        raise UserError(
            f"the size of '{data.name}' is not known here; set --config.data.image_size"
        )
    return DataSpec((data.image_size, data.image_size, data.channels), 256, settings.model.classes)


def job(settings: Config) -> Job:
    """Everything but parameters."""
    data = data_spec(settings)
    return Job(settings, data, build.diffusion(settings, data))


def program(function: Callable, *arguments: Any) -> Program:
    """A function of arrays, compiled for these."""
    lowered = jax.jit(function).lower(*arguments)
    compiled = lowered.compile(compiler_options=compiler_options())
    flops = operations.count(function, *arguments)
    return Program(lambda: compiled(*arguments), compiled, flops)


def spread(one: Job) -> sharding.Parallel:
    """The training step over all devices, not yet compiled."""
    training, settings = one.training, one.settings
    shapes = jax.eval_shape(training.init, jax.random.key(0))
    size = settings.train.batch_size
    return sharding.data_parallel(
        training.make_step, settings.parallel, jax.devices(), size, shapes
    )


def train_step(one: Job, **options: Any) -> Program:
    """The training step, as `train.py` compiles it; every call goes on from the last state.

    Args:
        options: more of XLA's.
    """
    batch, parallel = one.batch, spread(one)
    flops = operations.count(parallel.step, *parallel.shapes(batch))
    parallel = parallel.compile(batch, **options)
    key = stream_key(one.settings.seed, Stream.INIT)
    placed, state = parallel.place_batch(batch), parallel.place_state(one.training.init(key))

    def call():
        nonlocal state
        state, metrics = parallel.step(state, placed)
        return metrics

    return Program(call, parallel.step, flops)


def network_calls(diffusion: build.Diffusion, params, x: jax.Array, times: jax.Array, label):
    """x after one call of the network at each time, and nothing else."""

    def call(x, time):
        output = diffusion.network(params, x, jnp.full(len(x), time), label, None)
        return output[..., : x.shape[-1]], None

    return jax.lax.scan(call, x, times)[0]


def own_work(diffusion: build.Diffusion) -> build.Diffusion:
    """The same with a network that costs nothing."""
    return diffusion._replace(network=lambda params, x, time, label, keys: 0.5 * x)


def forward(one: Job) -> Program:
    """One call of the network without dropout."""
    size = one.settings.train.batch_size
    x = jax.random.normal(jax.random.key(1), (size, *one.data.shape))
    params, x, t = one.placed(x, jnp.arange(size) % one.diffusion.schedule.steps)
    return program(
        lambda params, x, t: one.diffusion.network(params, x, t, None, None), params, x, t
    )
