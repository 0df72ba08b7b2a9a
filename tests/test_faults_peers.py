"""Two trainers of one run, one of them killed: the other ends by itself, and both resume."""

import time

import pytest
from trainers import assert_same_run, copy, finish, run, start

TWO = {"processes": 2, "train__log_every": 1}
LAST = 40


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """The run that nobody disturbed."""
    folder = tmp_path_factory.mktemp("runs") / "straight"
    run(folder, **TWO, train__steps=LAST, train__save_every=10)
    return folder


def until(started, said):
    """Wait for the first process to say something."""
    for line in started[0].stdout:
        if said in line:
            return
    raise AssertionError(f"never said {said}: {finish(started)}")


def in_a_save(folder):
    """Wait for the leftovers that a save has while it is under way."""
    while not list((folder / "checkpoints").glob("saving-*")):
        time.sleep(0.001)


CASES = [
    (1, "a step"),
    *(
        pytest.param(*c, marks=pytest.mark.faults)
        for c in [(0, "a step"), (0, "a save"), (1, "a save")]
    ),
]


@pytest.mark.parametrize(("victim", "moment"), CASES)
def test_a_lost_process_ends_the_other_and_both_resume(straight, tmp_path, victim, moment):
    folder = tmp_path / "run"
    every = 1 if moment == "a save" else 10
    started = start(folder, **TWO, train__steps=10_000, train__save_every=every)
    until(started, "step 12/")
    if moment == "a save":
        in_a_save(folder)
    started[victim].kill()
    began = time.monotonic()
    ended = finish(started)
    assert time.monotonic() - began < 60.0
    code, _, errors = ended[1 - victim]
    assert code == 4
    (line,) = errors.splitlines()
    assert line.startswith(f"error: process {victim} of 2 was lost after step ")
    assert line.endswith("start all processes again with the same command to resume")
    run(folder, **TWO, train__steps=LAST, train__save_every=10)
    assert_same_run(folder, straight, LAST)


@pytest.mark.faults
@pytest.mark.parametrize("told", [0, 1])
def test_a_stop_told_to_one_stops_both_after_the_same_step(straight, tmp_path, told):
    folder = tmp_path / "run"
    started = start(folder, **TWO, train__steps=10_000, train__save_every=0)
    until(started, "step 3/")
    started[told].terminate()
    ended = finish(started)
    assert [code for code, _, _ in ended] == [143, 143]
    lines = [errors.splitlines()[-1] for _, _, errors in ended]
    assert lines[0] == lines[1]
    assert lines[0].startswith("stopped by SIGTERM after step ")
    step = max(int(path.name) for path in (folder / "checkpoints").iterdir())
    assert lines[0] == f"stopped by SIGTERM after step {step} (saved); the same command resumes"
    if step < LAST:
        run(folder, **TWO, train__steps=LAST, train__save_every=10)
        assert_same_run(folder, straight, LAST)


@pytest.mark.faults
def test_a_locked_folder_is_refused_by_all(straight, tmp_path):
    folder = copy(straight, tmp_path / "run")
    (alone,) = start(folder, train__steps=10_000, train__save_every=10)
    until([alone], "resuming")
    for code, _, errors in finish(start(folder, **TWO, train__steps=10_000)):
        assert code == 2
        assert "is being trained by another process" in errors
    alone.kill()
    alone.communicate()


@pytest.mark.faults
def test_a_save_that_fails_ends_both(tmp_path):
    """One alone would go on and try again; here the other may wait in that very save."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "checkpoints").write_text("in the way")
    began = time.monotonic()
    ended = finish(start(folder, **TWO, train__steps=10_000, train__save_every=2))
    assert time.monotonic() - began < 120.0
    assert {code for code, _, _ in ended} <= {4, 5}
    assert 5 in {code for code, _, _ in ended}
    for _, _, errors in ended:
        assert len(errors.splitlines()) == 1, errors
