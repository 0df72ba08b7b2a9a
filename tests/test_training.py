"""Laws of the training step, the optimiser, the average and the metrics."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny import Tiny

from diffusion_jax.checkpoints.storage import SavedLosses
from diffusion_jax.core.keys import Stream, stream_key
from diffusion_jax.core.timesteps import TIMESTEPS
from diffusion_jax.training.history import Mean
from diffusion_jax.training.hooks import Profiler
from diffusion_jax.training.optimizer import DECAYS, learning_rate, optimizer
from diffusion_jax.training.report import MetricsWriter
from diffusion_jax.training.state import create
from diffusion_jax.training.step import Batch, Losses, accumulated, ema_decay_at, make_step

# Everything the state can hold: a learned variance, and the memory of how t is drawn.
BOUND = {"loss": "bound", "variance": "learned_range", "timesteps": "importance"}


@pytest.fixture(scope="module")
def tiny():
    return Tiny(**BOUND)


@pytest.fixture(scope="module")
def step(tiny):
    return jax.jit(tiny.training.make_step())


def test_a_step_learns(tiny, step):
    """On one batch whose t and noise are held fixed, every update lowers the loss."""
    batch, state, losses = tiny.batch(0), tiny.state(), []
    memory = state.memory
    for _ in range(20):
        state, metrics = step(state._replace(step=np.int32(5), memory=memory), batch)
        losses.append(float(metrics.loss))
    assert losses[-1] < 0.9 * losses[0]


def test_a_bad_update_is_left_out_and_counted(tiny, step):
    """Not finite: everything stays but the step and the counts. Finite: only the row ends."""
    batch, good = tiny.batch(0), tiny.state()
    bad = good._replace(params=jax.tree.map(lambda a: np.full_like(a, np.inf), good.params))
    first, metrics = step(bad, batch)
    assert not np.isfinite(metrics.loss)
    second, metrics = step(first, batch)
    assert int(second.step) == 2
    assert jax.tree.map(int, second.skipped) == metrics.skipped == (2, 2)
    for name in ("params", "ema", "opt_state", "memory"):
        jax.tree.map(np.testing.assert_array_equal, getattr(second, name), getattr(bad, name))
    third, metrics = step(second._replace(params=good.params), batch)
    assert metrics.skipped == third.skipped == (0, 2)
    assert np.isfinite(metrics.loss)


def test_accumulated_gradients_are_the_whole_batchs():
    """Dropout off: within 1e-6 of the norm; every image keeps its t and noise."""
    tiny = Tiny(model__dropout=0.0, train__batch_size=8)
    state, batch = tiny.state(), tiny.batch(0)
    taken = [
        jax.jit(accumulated(tiny.loss, count))(tiny.params(), state.memory, state.step, batch)
        for count in (1, 4)
    ]
    ((value, losses), grads), ((their_value, their_losses), theirs) = taken
    np.testing.assert_allclose(value, their_value, rtol=1e-6)
    np.testing.assert_array_equal(losses.t, their_losses.t)
    np.testing.assert_allclose(losses.each, their_losses.each, rtol=1e-5)
    difference = optax.tree.norm(jax.tree.map(jnp.subtract, grads, theirs))
    assert difference <= 1e-6 * optax.tree.norm(grads)


def test_state_is_not_aliased(tiny):
    """An average that shares memory with the parameters would be donated twice."""
    state = tiny.training.init(stream_key(0, Stream.INIT))
    donated = jax.jit(lambda s: jax.tree.map(lambda a: a + 1, s), donate_argnums=0)(state)
    assert int(donated.step) == 1


def test_ema_warms_up():
    decays = [float(ema_decay_at(jnp.int32(n), 0.999)) for n in range(20_000)]
    assert decays[0] == pytest.approx(0.1)
    assert np.all(np.diff(decays) >= 0.0)
    assert decays[-1] == pytest.approx(0.999)
    # After n updates the start's share is the product of the decays: gone early in a short run.
    assert np.prod(decays[:50]) < 1e-8


def test_the_average_without_warmup():
    """Its decay is the same from the first update on, which an average of a copy starts from."""
    adam, drawing = optimizer(lambda _: 0.1, 0.9, 0.999, 1e-8, 0.0, 0.0), TIMESTEPS["uniform"](10)

    def loss(params, memory, step, batch):
        return jnp.sum(params), Losses(jnp.zeros(1, jnp.int32), jnp.zeros(1))

    state = create(jnp.ones(1), adam, drawing)
    for warmup, decay in ((True, 0.1), (False, 0.75)):
        step = make_step(loss, drawing, adam, lambda _: 0.1, 0.75, ema_warmup=warmup)
        after, _ = step(state, Batch(0, 0, 0))
        np.testing.assert_allclose(after.params, 0.9, rtol=1e-6)
        np.testing.assert_allclose(after.ema, decay + (1.0 - decay) * 0.9, rtol=1e-6)


@pytest.mark.parametrize("decay", DECAYS)
def test_learning_rate_rises_then_follows_its_decay(decay):
    rate = learning_rate(0.1, 10, DECAYS[decay], 110)
    np.testing.assert_allclose([rate(n) for n in range(11)], np.linspace(0.0, 0.1, 11), atol=1e-8)
    assert float(rate(110)) == pytest.approx(float(DECAYS[decay](0.1, 100)(100)), abs=1e-8)
    assert float(learning_rate(0.1, 0, DECAYS[decay], 100)(0)) == pytest.approx(0.1)


@pytest.mark.parametrize(("clip_norm", "norm"), [(1.0, 1.0), (0.0, 2e6)])
def test_the_gradient_is_clipped_before_adam(clip_norm, norm):
    """Adam's first moment is a tenth of the gradient it was given."""
    transform = optimizer(optax.constant_schedule(0.1), 0.9, 0.999, 1e-8, 0.0, clip_norm)
    params = {"w": jnp.zeros(4)}
    _, state = transform.update({"w": jnp.full(4, 1e6)}, transform.init(params), params)
    moment = optax.tree_utils.tree_get(state, "mu")["w"]
    np.testing.assert_allclose(np.linalg.norm(moment), 0.1 * norm, rtol=1e-5)


def test_metrics_after_a_cut_have_every_step_once(tmp_path):
    writer = MetricsWriter(tmp_path, 0, 1)
    for step in (1, 2, 3, 4):
        writer.write(step, loss=float(step))
    writer.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "lo')
    writer = MetricsWriter(tmp_path, 2, 1)
    for step in (3, 4):
        writer.write(step, loss=10.0 * step)
    writer.close()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines == [
        {"step": 1, "loss": 1.0},
        {"step": 2, "loss": 2.0},
        {"step": 3, "loss": 30.0},
        {"step": 4, "loss": 40.0},
    ]


def test_the_mean_loss_is_that_of_every_step_since_the_last_save_that_was_due():
    """However often the run was stopped in between, whose saves count for nothing."""
    straight, stopped = Mean(), Mean()
    for n in range(10):
        straight.add(0.1 * n)
        stopped.add(0.1 * n)
        if n in (3, 4):
            saved = stopped.at_save(due=False)
            assert saved.mean is None
            stopped = Mean(saved.total, saved.count)
    assert (
        stopped.at_save(due=True) == straight.at_save(due=True) == SavedLosses(pytest.approx(0.45))
    )
    assert straight.at_save(due=True).mean is None


def test_the_profiler_traces_its_steps_wherever_a_run_begins(tmp_path):
    for begin, last, traces in ((1, 5, 1), (4, 5, 1), (6, 5, 0), (1, 99, 1), (1, 0, 0)):
        folder = tmp_path / f"{begin}-{last}"
        profiler = Profiler(folder, 3 if last else 0, last)
        for step in range(begin, 8):
            profiler.before(step, jnp.zeros(1))
        profiler.close()
        assert len(list(folder.rglob("*.xplane.pb"))) == traces


def test_streams_and_steps_never_share_a_key():
    keys = {
        tuple(jax.random.key_data(stream_key(0, stream, step)).tolist())
        for stream in Stream
        for step in range(20)
    }
    assert len(keys) == len(Stream) * 20
