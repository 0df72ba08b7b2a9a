"""One device, four devices under jit and four under pmap do the same thing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import Tiny

from diffusion_jax.checkpoints.step_folders import Keep
from diffusion_jax.checkpoints.storage import Checkpoints, Outcome
from diffusion_jax.core import gaussian, schedules
from diffusion_jax.core.objective import LOSSES, Model, training_loss
from diffusion_jax.core.predictions import prediction
from diffusion_jax.core.process import q_sample, reverse_process
from diffusion_jax.devices import sharding
from diffusion_jax.errors import UserError
from diffusion_jax.models import packing

DEVICES = jax.devices()[:4]
needs_devices = pytest.mark.skipif(len(DEVICES) < 4, reason="needs four devices")
SCHEDULE = schedules.linear(100)
MODEL = Model(
    prediction("eps", SCHEDULE), reverse_process(SCHEDULE, "learned_range"), "simple", 256
)


def noising(x0, t, eps):
    return q_sample(SCHEDULE, x0, t, eps)


def divergence(x0, t, eps):
    return gaussian.kl(x0, 0.1 * eps, eps, 0.2 * x0)


def loss(name):
    def network(x, t):
        return jnp.concatenate([0.5 * x, 0.2 * x], -1)

    return lambda x0, t, eps: training_loss(MODEL, name, network, x0, t, eps)


@needs_devices
@pytest.mark.parametrize("function", [noising, divergence, *map(loss, LOSSES)])
def test_pure_functions_agree_under_pmap_jit_and_plain(function):
    x0, eps = jax.random.normal(jax.random.key(0), (2, 4, 3, 2, 2, 1))
    t = jax.random.randint(jax.random.key(1), (4, 3), 0, 100)
    plain = jnp.stack([function(x0[i], t[i], eps[i]) for i in range(4)])
    mapped = jax.pmap(function, devices=DEVICES)(x0, t, eps)
    flat = [a.reshape(-1, *a.shape[2:]) for a in (x0, t, eps)]
    jitted = jax.jit(function)(*flat).reshape(plain.shape)
    np.testing.assert_allclose(mapped, plain, rtol=2e-6, atol=1e-7)
    np.testing.assert_allclose(jitted, plain, rtol=2e-6, atol=1e-7)


# Learned variances and a memory of how t is drawn: all that devices could disagree about.
BOUND = {"loss": "bound", "variance": "learned_range", "timesteps": "importance"}


@pytest.fixture(scope="module")
def tiny():
    """With arrays of a tiny network counted as large enough to be split."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sharding, "SPLIT_FROM", 256)
        patch.setattr(packing, "LIMIT", 256)
        yield Tiny(train__batch_size=8, **BOUND)


def spread(tiny, mode, devices_used, batch_size=8):
    shapes = jax.eval_shape(tiny.training.init, jax.random.key(0))
    return sharding.data_parallel(tiny.training.make_step, mode, devices_used, batch_size, shapes)


def run(tiny, mode, devices_used, steps=3):
    parallel = spread(tiny, mode, devices_used)
    state, losses = parallel.place_state(tiny.state()), []
    for step in range(steps):
        state, placed = parallel.step(state, parallel.place_batch(tiny.batch(step)))
        metrics = parallel.read(placed)
        losses.append((metrics.losses.t, float(metrics.loss)))
    return jax.tree.map(np.asarray, parallel.gather(state)), losses


@pytest.fixture(scope="module")
def alone(tiny):
    return run(tiny, "jit", DEVICES[:1])


@needs_devices
@pytest.mark.parametrize("mode", sharding.MODES)
def test_training_on_four_devices_is_training_on_one(tiny, alone, mode):
    """Gradients are averages over the whole batch: neither summed nor of a device's share."""
    state, losses = run(tiny, mode, DEVICES)
    for (t, loss), (their_t, their_loss) in zip(losses, alone[1], strict=True):
        np.testing.assert_array_equal(t, their_t)
        np.testing.assert_allclose(loss, their_loss, rtol=1e-5)
    for ours, reference in zip(jax.tree.leaves(state), jax.tree.leaves(alone[0]), strict=True):
        # Adam divides by the gradient's own size, so a rounding error can move a weight visibly.
        np.testing.assert_allclose(ours, reference, atol=2e-5)


@needs_devices
def test_gradients_are_not_multiplied_by_the_number_of_devices(tiny, alone):
    parallel = spread(tiny, "pmap", DEVICES)
    state = parallel.place_state(tiny.state())
    _, metrics = parallel.step(state, parallel.place_batch(tiny.batch(0)))
    start = tiny.state()
    gradient = jax.jit(jax.grad(tiny.loss, has_aux=True))
    grads, _ = gradient(tiny.params(), start.memory, 0, tiny.batch(0))
    norm = np.sqrt(sum(float(np.square(g).sum()) for g in jax.tree.leaves(grads)))
    np.testing.assert_allclose(parallel.read(metrics).grad_norm, norm, rtol=1e-4)


@needs_devices
def test_a_batch_that_does_not_divide_is_refused(tiny):
    with pytest.raises(UserError, match="6 is not divisible by the 4 devices; nearest: 4 or 8"):
        spread(tiny, "jit", DEVICES, batch_size=6)


@needs_devices
def test_fsdp_splits_parameters_and_optimiser(tiny):
    """Each device holds a quarter of every array that is large enough and divides."""
    parallel = spread(tiny, "fsdp", DEVICES)
    state = parallel.place_state(tiny.state())
    whole = sum(a.nbytes for a in jax.tree.leaves(state))
    own = sum(a.addressable_data(0).nbytes for a in jax.tree.leaves(state))
    large = [
        a
        for a in jax.tree.leaves(state)
        if a.size >= sharding.SPLIT_FROM and any(side % 4 == 0 for side in a.shape)
    ]
    assert large
    assert all(a.addressable_data(0).size == a.size // 4 for a in large)
    assert own == whole - 0.75 * sum(a.nbytes for a in large)


def test_the_batch_divides_into_its_parts_on_every_device():
    sharding.check_batch(24, 4, pieces=3)
    with pytest.raises(UserError, match=r"16 .* by the 4 devices times config.train.accumulate 3"):
        sharding.check_batch(16, 4, pieces=3)


@needs_devices
def test_a_checkpoint_moves_between_layouts_exactly(tiny, tmp_path):
    """Whole on one device, split over four, a copy on each: the same bits, placed as asked for."""
    layouts = [("jit", DEVICES[:1]), ("fsdp", DEVICES), ("jit", DEVICES), ("pmap", DEVICES)]
    state = tiny.state()
    for n, (mode, used) in enumerate([*layouts, layouts[0]]):
        parallel = spread(tiny, mode, used)
        folder = tmp_path / str(n)
        checkpoints = Checkpoints(folder, {}, Keep(1))
        checkpoints.save(parallel.single(parallel.place_state(state)))
        assert checkpoints.wait() == Outcome(0, None)
        following = spread(tiny, *layouts[(n + 1) % len(layouts)])
        restored = checkpoints.restore(0, following.state)
        places = jax.tree.map(lambda a: a.sharding, following.state)
        assert jax.tree.map(lambda a: a.sharding, restored) == places
        state = jax.tree.map(np.asarray, restored)
    jax.tree.map(np.testing.assert_array_equal, state, tiny.state())
