"""Laws of the training step, the optimiser, the average and the checkpoint."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny import Tiny

from diffusion_jax.core.keys import Stream, stream_key
from diffusion_jax.errors import UserError
from diffusion_jax.training.checkpoint import Checkpoints
from diffusion_jax.training.metrics import MetricsWriter
from diffusion_jax.training.optimizer import DECAYS, learning_rate, optimizer
from diffusion_jax.training.step import ema_decay_at

# Everything the state can hold: a learned variance, and the memory of how t is drawn.
BOUND = {"loss": "bound", "variance": "learned_range", "timesteps": "importance"}


@pytest.fixture(scope="module")
def tiny():
    return Tiny(**BOUND)


@pytest.fixture(scope="module")
def step(tiny):
    return jax.jit(tiny.training.make_step())


def advance(tiny, step, state, first, last):
    for i in range(first, last):
        state, _ = step(state, tiny.batch(i))
    return jax.tree.map(np.asarray, state)


def assert_same(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_a_step_learns(tiny, step):
    """On one batch whose t and noise are held fixed, every update lowers the loss."""
    batch, state, losses = tiny.batch(0), tiny.state(), []
    memory = state.memory
    for _ in range(20):
        state, metrics = step(state._replace(step=np.int32(5), memory=memory), batch)
        losses.append(float(metrics.loss))
    assert losses[-1] < 0.9 * losses[0]


def test_resuming_is_going_on(tiny, step, tmp_path):
    """4 steps straight = 2 steps, save, restore elsewhere, 2 steps: every array, bit for bit."""
    straight = advance(tiny, step, tiny.state(), 0, 4)
    half = advance(tiny, step, tiny.state(), 0, 2)
    checkpoints = Checkpoints(tmp_path / "checkpoints", {}, keep=1)
    checkpoints.save(half)
    checkpoints.close()
    reopened = Checkpoints(tmp_path / "checkpoints", {}, keep=1)
    assert reopened.latest() == 2
    restored = reopened.restore(2, tiny.state())
    assert_same(restored, half)
    assert_same(advance(tiny, step, restored, 2, 4), straight)


def test_the_average_alone_can_be_restored(tiny, tmp_path):
    state = tiny.state()._replace(step=np.int32(7))
    checkpoints = Checkpoints(tmp_path / "checkpoints", {}, keep=1)
    checkpoints.save(state)
    assert checkpoints.wait() == 7
    restored = Checkpoints(tmp_path / "checkpoints", {}).restore_ema(None, state.ema)
    assert restored.step == 7
    assert_same(restored.ema, state.ema)


def test_parameters_keep_their_meaning(tiny, tmp_path):
    """Restored under another schedule they would be nonsense: a line says what was changed."""
    checkpoints = Checkpoints(tmp_path, {"schedule": "linear", "prediction": "eps"}, keep=1)
    checkpoints.save(tiny.state())
    checkpoints.close()
    changed = Checkpoints(tmp_path, {"schedule": "cosine", "prediction": "eps"})
    line = r"checkpoint 0 in .* trained with the schedule linear; config.json now says cosine"
    with pytest.raises(UserError, match=line):
        changed.restore(0, tiny.state())
    with pytest.raises(UserError, match=line):
        changed.restore_ema(None, tiny.state().ema)


def test_old_checkpoints_go_and_half_made_ones_do_not_count(tiny, tmp_path):
    folder = tmp_path / "checkpoints"
    checkpoints = Checkpoints(folder, {}, keep=2)
    finished = [checkpoints.save(tiny.state()._replace(step=np.int32(n))) for n in (1, 2, 3)]
    assert finished == [None, 1, 2]
    assert checkpoints.wait() == 3
    assert sorted(path.name for path in folder.iterdir()) == ["2", "3"]
    checkpoints.close()
    (folder / "9").mkdir()
    assert Checkpoints(folder, {}).latest() == 3
    # Nor do they stand in the way of what follows.
    checkpoints = Checkpoints(folder, {}, keep=2)
    checkpoints.save(tiny.state()._replace(step=np.int32(6)))
    assert checkpoints.wait() == 6
    assert Checkpoints(folder, {}).latest() == 6


def test_a_missing_checkpoint_is_named(tiny, tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoints", {}, keep=1)
    with pytest.raises(UserError, match=r"no checkpoint in .*; train first"):
        checkpoints.restore_ema(None, tiny.state().ema)
    checkpoints.save(tiny.state()._replace(step=np.int32(3)))
    checkpoints.wait()
    with pytest.raises(UserError, match=r"no checkpoint of step 4 in .*; there are: 3"):
        checkpoints.restore_ema(4, tiny.state().ema)


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
    writer = MetricsWriter(tmp_path, 0)
    for step in (1, 2, 3, 4):
        writer.write(step, loss=float(step))
    writer.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "lo')
    writer = MetricsWriter(tmp_path, 2)
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


def test_streams_and_steps_never_share_a_key():
    keys = {
        tuple(jax.random.key_data(stream_key(0, stream, step)).tolist())
        for stream in Stream
        for step in range(20)
    }
    assert len(keys) == len(Stream) * 20
