"""Our compiled programs on random images, from a config and a batch size; no data set is needed."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.harness.roofline import count_operations
from diffusion_jax import build
from diffusion_jax.configuration import Config
from diffusion_jax.core.keys import Stream, stream_key
from diffusion_jax.data.dataset import DataSpec
from diffusion_jax.devices import sharding
from diffusion_jax.devices.compiler import compiler_options
from diffusion_jax.errors import UserError
from diffusion_jax.models.network import parameter_count
from diffusion_jax.training.state import TrainState
from diffusion_jax.training.step import Batch

KNOWN = {
    "digits": DataSpec((8, 8, 1), 17, 10),
    "mnist": DataSpec((28, 28, 1), 256, 10),
    "fashion_mnist": DataSpec((28, 28, 1), 256, 10),
    "cifar10": DataSpec((32, 32, 3), 256, 10),
}


class Program(NamedTuple):
    """A compiled program that can be called repeatedly.

    flops: operations of one call, as `count_operations` counts them.
    """

    call: Callable[[], Any]
    compiled: Any
    flops: int


class Job(NamedTuple):
    """A config with what it builds, and random images."""

    settings: Config
    data: DataSpec
    diffusion: build.Diffusion

    @property
    def size(self) -> int:
        """The number of images in a batch."""
        return self.settings.train.batch_size

    @property
    def batch(self) -> Batch:
        """One whole batch on the host."""
        rng = np.random.default_rng(0)
        images = rng.integers(self.data.levels, size=(self.size, *self.data.shape))
        labels = rng.integers(max(self.data.classes, 1), size=self.size).astype(np.int32)
        return Batch(images.astype(np.uint8), labels, np.arange(self.size, dtype=np.int32))

    @property
    def training(self) -> build.Training:
        """Loss, optimiser and average."""
        return build.training(self.settings, self.diffusion)

    @property
    def state(self) -> TrainState:
        """The shapes of a training state."""
        return jax.eval_shape(self.training.init, jax.random.key(0))

    @property
    def parameters(self) -> int:
        """The number of the network's parameters."""
        return parameter_count(jax.eval_shape(self.diffusion.init, jax.random.key(0)))

    def placed(self, *arrays: Any) -> tuple[Any, ...]:
        """Return fresh parameters on every device, and the arrays split over them by image."""
        sharding.check_batch(self.size, jax.device_count())
        layout = sharding.shardings(jax.devices())
        params = jax.device_put(self.diffusion.init(jax.random.key(0)), layout.replicated)
        return params, *jax.device_put(arrays, layout.split)


def data_spec(settings: Config) -> DataSpec:
    """Return shape, levels and classes of the config's images without opening the data.

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
    """Build everything except parameters."""
    data = data_spec(settings)
    return Job(settings, data, build.diffusion(settings, data))


def program(function: Callable, *arguments: Any) -> Program:
    """Compile a function of arrays for these arguments."""
    lowered = jax.jit(function).lower(*arguments)
    compiled = lowered.compile(compiler_options=compiler_options())
    flops = count_operations(function, *arguments)
    return Program(lambda: compiled(*arguments), compiled, flops)


def spread(one: Job, devices: Sequence[Any] | None = None) -> sharding.Parallel:
    """Return the training step over these devices, by default all, not yet compiled."""
    mode, used = one.settings.parallel, devices or jax.devices()
    return sharding.data_parallel(one.training.make_step, mode, used, one.size, one.state)


def train_step(one: Job, **options: Any) -> Program:
    """Compile the training step as `train.py` does; each call continues from the last state.

    Args:
        options: additional options of XLA.
    """
    batch, parallel = one.batch, spread(one)
    flops = count_operations(parallel.step, *parallel.shapes(batch))
    parallel = parallel.compile(batch, **options)
    key = stream_key(one.settings.seed, Stream.INIT)
    placed, state = parallel.place_batch(batch), parallel.place_state(one.training.init(key))

    def call():
        nonlocal state
        state, metrics = parallel.step(state, placed)
        return metrics

    return Program(call, parallel.step, flops)


def forward(one: Job) -> Program:
    """Compile one call of the network without dropout."""
    x = jax.random.normal(jax.random.key(1), (one.size, *one.data.shape))
    params, x, t = one.placed(x, jnp.arange(one.size) % one.diffusion.schedule.steps)
    return program(
        lambda params, x, t: one.diffusion.network(params, x, t, None, None), params, x, t
    )


def network_calls(diffusion: build.Diffusion, params, x: jax.Array, times: jax.Array, label):
    """Return x after one call of the network at each time, and nothing else."""

    def call(x, time):
        output = diffusion.network(params, x, jnp.full(len(x), time), label, None)
        return output[..., : x.shape[-1]], None

    return jax.lax.scan(call, x, times)[0]


def own_work(one: Job) -> Job:
    """Replace the network by one that costs nothing."""

    def free(params, x, time, label, keys):
        return 0.5 * x

    return one._replace(diffusion=one.diffusion._replace(network=free))
