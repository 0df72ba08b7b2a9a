"""Checkpoints: what was saved comes back bit for bit, and what is damaged does not come back."""

import struct
import subprocess
from collections import namedtuple

import jax
import numpy as np
import pytest
from faults import DAMAGE, fill, flip, small_disk
from tensorboardX.proto import event_pb2
from tiny import Tiny

from diffusion_jax.checkpoints import manifest, step_folders, storage
from diffusion_jax.checkpoints.step_folders import Keep
from diffusion_jax.checkpoints.storage import Checkpoints, Outcome, SavedLosses
from diffusion_jax.errors import UserError
from diffusion_jax.training.report import MetricsWriter


@pytest.fixture(scope="module")
def tiny():
    return Tiny()


@pytest.fixture(scope="module")
def step(tiny):
    return jax.jit(tiny.training.make_step())


def advance(tiny, step, state, first, last):
    for i in range(first, last):
        state, _ = step(state, tiny.batch(i))
    return jax.tree.map(np.asarray, state)


def assert_same(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


def saved(folder, state, *steps, keep=3):
    """A folder of checkpoints of these steps."""
    checkpoints = Checkpoints(folder, {}, Keep(keep))
    for n in steps:
        checkpoints.save(state._replace(step=np.int32(n)))
        assert checkpoints.wait() == Outcome(n, None)
    checkpoints.close()
    return folder


def test_resuming_is_going_on(tiny, step, tmp_path):
    """4 steps straight = 2 steps, save, restore elsewhere, 2 steps: every array, bit for bit."""
    straight = advance(tiny, step, tiny.state(), 0, 4)
    half = advance(tiny, step, tiny.state(), 0, 2)
    saved(tmp_path, half, 2)
    reopened = Checkpoints(tmp_path, {}, Keep(1))
    assert reopened.latest() == 2
    restored = reopened.restore(2, tiny.state())
    assert_same(restored, half)
    assert_same(advance(tiny, step, restored, 2, 4), straight)


def test_a_state_whose_classes_were_renamed_is_restored(tmp_path):
    """Older versions had other names for the memory of importance sampling, and for the state."""
    state = Tiny(timesteps="importance").state()
    memory = namedtuple("History", state.memory._fields)(*state.memory)
    older = namedtuple("State", state._fields)(*state._replace(memory=memory))
    saved(tmp_path, older, 2)
    restored = Checkpoints(tmp_path, {}).restore(2, state)
    assert type(restored.memory) is type(state.memory)
    assert_same(restored, state._replace(step=np.int32(2)))


def test_a_save_is_reported_when_it_is_on_disk(tiny, tmp_path):
    checkpoints = Checkpoints(tmp_path, {}, Keep(2))
    states = [tiny.state()._replace(step=np.int32(n)) for n in (1, 2)]
    assert checkpoints.save(states[0]) is None
    assert checkpoints.save(states[1]) == Outcome(1, None)
    assert step_folders.damage(tmp_path, 1) is None
    assert checkpoints.wait() == Outcome(2, None)
    assert step_folders.damage(tmp_path, 2) is None
    assert checkpoints.wait() is checkpoints.finished() is None


def test_the_average_alone_can_be_restored(tiny, tmp_path):
    state = tiny.state()
    restored = Checkpoints(saved(tmp_path, state, 7), {}).restore_ema(None, state.ema)
    assert restored.step == 7
    assert_same(restored.ema, state.ema)


def test_parameters_keep_their_meaning(tiny, tmp_path):
    """Restored under another schedule they would be nonsense: a line says what was changed."""
    checkpoints = Checkpoints(tmp_path, {"schedule": "linear", "prediction": "eps"}, Keep(1))
    checkpoints.save(tiny.state())
    checkpoints.wait()
    changed = Checkpoints(tmp_path, {"schedule": "cosine", "prediction": "eps"})
    line = r"checkpoint 0 in .* trained with the schedule linear; config.json now says cosine"
    with pytest.raises(UserError, match=line):
        changed.restore(0, tiny.state())
    with pytest.raises(UserError, match=line):
        changed.restore_ema(None, tiny.state().ema)


def test_another_tree_is_named_by_its_first_difference(tiny, tmp_path):
    """Another network, another optimiser, another type: none is restored by a silent cast."""
    state = tiny.state()
    checkpoints = Checkpoints(saved(tmp_path, state, 1), {})

    def wrong(other):
        with pytest.raises(UserError) as error:
            checkpoints.restore(1, other)
        return str(error.value)

    wide = wrong(Tiny(model__channels=16).state())
    assert "of another network or optimiser: params/" in wide
    assert (
        "params/condition/time_1/kernel is missing in the checkpoint and float32[64, 64] now"
        in wide
    )
    assert "params/small is float32[" in wrong(Tiny(model__scale_shift_norm=True).state())
    without = state._replace(opt_state=state.opt_state[1:])
    assert "opt_state/0/0/count is missing in the checkpoint and int32[] now" in wrong(without)
    half = state._replace(ema=jax.tree.map(lambda a: a.astype(np.float16), state.ema))
    assert "is float32" in wrong(half)
    assert "float16" in wrong(half)


@pytest.mark.parametrize(
    ("keep", "kept"),
    [
        (Keep(1), {7}),
        (Keep(3), {5, 6, 7}),
        (Keep(1, every=3), {3, 6, 7}),
        (Keep(1, best=2), {2, 4, 7}),
        (Keep(2, every=5, best=1), {2, 5, 6, 7}),
    ],
)
def test_the_last_the_regular_and_the_best_stay(keep, kept):
    losses = {1: 0.9, 2: 0.1, 3: 0.5, 4: 0.2, 5: 0.3, 6: None, 7: 0.8}
    assert step_folders.to_keep(losses, keep) == kept


def test_what_is_not_kept_goes(tiny, tmp_path):
    checkpoints = Checkpoints(tmp_path, {}, Keep(1, every=4, best=1))
    for n, loss in ((1, 0.5), (2, 0.1), (3, 0.2), (4, 0.3), (5, 0.4), (6, None)):
        checkpoints.save(tiny.state()._replace(step=np.int32(n)), SavedLosses(loss))
    checkpoints.wait()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["2", "4", "6"]


def test_half_made_and_empty_folders_never_count(tiny, tmp_path):
    saved(tmp_path, tiny.state(), 3)
    (tmp_path / "9").mkdir()
    (tmp_path / "8").mkdir()
    (tmp_path / "8" / "manifest.sha256").touch()
    (tmp_path / "saving-6").mkdir()
    (tmp_path / "saving-7.orbax-checkpoint-tmp" / "state").mkdir(parents=True)
    (tmp_path / "trash-2" / "state").mkdir(parents=True)
    assert Checkpoints(tmp_path, {}).latest() == 3
    step_folders.set_aside(tmp_path, 3)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["3", "damaged-8", "incomplete-9"]
    saved(tmp_path, tiny.state(), 9)
    assert Checkpoints(tmp_path, {}).latest() == 9


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_found_and_the_newest_good_step_used(tiny, tmp_path, kind):
    saved(tmp_path, tiny.state(), 3, 6)
    DAMAGE[kind](tmp_path / "6")
    said = []
    checkpoints = Checkpoints(tmp_path, {}, warn=said.append)
    assert checkpoints.latest() == 3
    assert len(said) == 1
    assert said[0].startswith(f"checkpoint 6 in {tmp_path} is damaged and skipped: ")
    with pytest.raises(UserError, match=r"checkpoint 6 in .* is damaged"):
        checkpoints.find(6)
    assert checkpoints.restore_ema(None, tiny.state().ema).step == 3


def test_a_step_removed_while_it_is_read_is_not_damaged(tiny, tmp_path, monkeypatch):
    """As by a trainer beside a sampler: the newest step by then is used, without a word."""
    saved(tmp_path, tiny.state(), 3)
    damage, said = manifest.damage, []

    def meanwhile(folder, **given):
        if folder.name == "3":
            saved(tmp_path, tiny.state(), 6, keep=1)
        return damage(folder, **given)

    monkeypatch.setattr(manifest, "damage", meanwhile)
    assert Checkpoints(tmp_path, {}, warn=said.append).latest() == 6
    assert said == []


def test_every_flipped_bit_is_found(tiny, tmp_path):
    """400 single bits over all files of a step, the manifest's included."""
    step = saved(tmp_path, tiny.state(), 1) / "1"
    rng = np.random.default_rng(0)
    files = [path for path in sorted(step.rglob("*")) if path.is_file()]
    for i in range(400):
        path = files[i % len(files)]
        at, bit = rng.integers(path.stat().st_size), rng.integers(8)
        flip(path, at, bit)
        assert manifest.damage(step), (path, at, bit)
        flip(path, at, bit)
    assert manifest.damage(step) is None


def test_other_tools_can_check_the_manifest(tiny, tmp_path):
    step = saved(tmp_path, tiny.state(), 1) / "1"
    done = subprocess.run(["sha256sum", "--quiet", "-c", manifest.NAME], cwd=step)
    assert done.returncode == 0


def test_a_missing_checkpoint_is_named(tiny, tmp_path):
    checkpoints = Checkpoints(tmp_path, {})
    with pytest.raises(UserError, match=r"no checkpoint in .*; train first"):
        checkpoints.restore_ema(None, tiny.state().ema)
    saved(tmp_path, tiny.state(), 3)
    with pytest.raises(UserError, match=r"no checkpoint of step 4 in .*; there are: 3"):
        checkpoints.restore_ema(4, tiny.state().ema)


@pytest.fixture
def disk(tmp_path):
    with small_disk(tmp_path / "disk") as place:
        yield place


def test_a_full_disk_loses_nothing_and_is_tried_again(tiny, disk):
    state = tiny.state()
    checkpoints = Checkpoints(disk / "run", {}, Keep(1))
    checkpoints.save(state._replace(step=np.int32(1)))
    assert checkpoints.wait() == Outcome(1, None)
    ballast = fill(disk, free=50_000)
    for n in (2, 3):
        checkpoints.save(state._replace(step=np.int32(n)))
        assert checkpoints.wait() == Outcome(n, "No space left on device")
        assert [path.name for path in (disk / "run").iterdir()] == ["1"]
        assert checkpoints.latest() == 1
    ballast.unlink()
    checkpoints.save(state._replace(step=np.int32(4)))
    assert checkpoints.wait() == Outcome(4, None)
    assert [path.name for path in (disk / "run").iterdir()] == ["4"]


def start(path):
    """The step that a file of TensorBoard events starts at, in its second record."""
    content = path.read_bytes()
    (size,) = struct.unpack("<Q", content[:8])
    content = content[16 + size :]
    (size,) = struct.unpack("<Q", content[:8])
    return event_pb2.Event.FromString(content[12 : 12 + size]).step


def test_metrics_wait_for_room_and_come_once(disk):
    """And nothing hangs: tensorboardX's own writer would, from its eleventh number on."""
    writer = MetricsWriter(disk, 0, 1)
    assert writer.write(1, loss=1.0) is None
    ballast = fill(disk)
    # What is left of the last block takes some lines more.
    answers = [writer.write(n, loss=float(n)) for n in range(2, 200)]
    assert answers[-1] == "No space left on device"
    ballast.unlink()
    assert writer.flush() is None
    assert writer.write(200, loss=200.0) is None
    writer.close()
    # A new file of events makes void what older ones say from its start on.
    first, *_, last = sorted((disk / "tensorboard").iterdir())
    assert start(first) == 1
    assert start(last) > 2
    lines = (disk / "metrics.jsonl").read_text().splitlines()
    assert lines == [f'{{"step": {n}, "loss": {float(n)}}}' for n in range(1, 201)]


@pytest.mark.parametrize("detail", ["os_error_code='ENOSPC'", "tensorstore_spec='{\"cache\":{}}'"])
def test_the_reason_of_a_failed_save_is_the_systems(detail):
    """Orbax and tensorstore put paths before it and details after it."""
    text = f"Error writing /run/saving-6/ema: ENOSPC: No space left on device [{detail}]"
    assert storage._reason(ValueError(text)) == "No space left on device"
