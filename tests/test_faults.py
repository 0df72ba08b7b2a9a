"""The fault table of docs/reliability.md: real processes, real files."""

import re
import shutil
import signal
import subprocess
import time

import jax
import numpy as np
import pytest
from faults import (
    DAMAGE,
    MANY,
    Run,
    assert_same_run,
    command,
    digits,
    finished,
    kill,
    metrics,
    names,
    newest,
    state,
)
from tiny import ROOT, train


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return digits(tmp_path_factory.mktemp("data"))


def test_the_table_names_tests_that_exist():
    named = set(re.findall(r"test_\w+", (ROOT / "docs" / "reliability.md").read_text()))
    written = "".join(path.read_text() for path in (ROOT / "tests").glob("test_*.py"))
    assert named
    assert {name for name in named if f"def {name}(" not in written} == set()


FEW = ["loop", "arrays"]
TWENTY = ["start"] * 2 + ["loop"] * 8 + ["arrays"] * 4 + ["manifest"] * 3 + ["clean-up"] * 3


@pytest.mark.parametrize("moments", [FEW, pytest.param(TWENTY, marks=pytest.mark.faults)], ids=len)
def test_a_killed_run_goes_on_bit_for_bit(data, tmp_path, moments):
    """After each kill the newest step is a straight run's, and so is the end."""
    rng = np.random.default_rng(len(moments))
    folder, straight, whole, hits = tmp_path / "killed", tmp_path / "straight", {}, []
    for moment in rng.permutation(moments).tolist():
        left, step = kill(folder, data, moment, rng)
        hits.append((moment, step, left))
        if step:
            whole[step] = state(folder / "checkpoints", step)
    print(*hits, sep="\n")
    end = newest(folder) + 3
    finished(folder, data, train__steps=end)
    assert all(name.isdigit() for name in names(folder))
    finished(straight, data, train__steps=end, train__keep=MANY)
    assert_same_run(folder, straight, end)
    for step, found in whole.items():
        jax.tree.map(np.testing.assert_array_equal, found, state(straight / "checkpoints", step))
    met = [left for moment, _, left in hits if left and moment != "start"]
    assert len(met) >= len(moments) // 2, "few kills met a save"


def test_a_second_trainer_is_refused_and_the_first_goes_on(data, tmp_path):
    first = Run(command(tmp_path / "run", data, train__steps=MANY)).until("step 1/")
    second = subprocess.run(
        command(tmp_path / "run", data), cwd=ROOT, capture_output=True, text=True
    )
    assert (second.returncode, len(second.stderr.splitlines())) == (2, 1)
    assert f"is being trained by another process ({first.process.pid} on " in second.stderr
    assert first.until(": saved").end(signal.SIGTERM) == 128 + signal.SIGTERM
    (line,) = first.errors()
    step = newest(tmp_path / "run")
    assert line == f"stopped by SIGTERM after step {step} (saved); the same command resumes"


@pytest.fixture(scope="module")
def short(data, tmp_path_factory):
    """A run of 8 steps, every second of them saved and kept."""
    folder = tmp_path_factory.mktemp("runs") / "short"
    finished(folder, data, train__steps=8, train__keep=MANY)
    return folder


def verify(folder):
    arguments = [*train(folder)[:2], f"--workdir={folder}", "--verify"]
    return subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True)


@pytest.mark.parametrize(
    "kind",
    [
        "flipped bit in data",
        *(pytest.param(kind, marks=pytest.mark.faults) for kind in [*DAMAGE][1:]),
        pytest.param("empty folder", marks=pytest.mark.faults),
    ],
)
def test_a_damaged_newest_step_is_passed_over(short, data, tmp_path, kind):
    """The run goes on from the step before, says so once, and ends as if nothing had been."""
    folder = shutil.copytree(short, tmp_path / "run")
    shutil.rmtree(folder / "checkpoints" / "8")
    step = folder / "checkpoints" / "6"
    if kind == "empty folder":
        shutil.rmtree(step)
        step.mkdir()
    else:
        DAMAGE[kind](step)
        checked = verify(folder)
        assert (checked.returncode, len(checked.stderr.splitlines())) == (2, 1)
        assert "1 of 3 checkpoints in" in checked.stderr
        assert "are damaged (6); training and sampling use 4" in checked.stderr
    run = Run(command(folder, data, train__steps=8, train__keep=MANY))
    assert run.end() == 0
    assert f"resuming {folder} after step 4" in run.lines
    said = [f"warning: checkpoint 6 in {folder / 'checkpoints'} is damaged and skipped"]
    assert [line.rsplit(": ", 1)[0] for line in run.errors()] == said[: kind != "empty folder"]
    assert_same_run(folder, short, 8)


def test_a_run_whose_every_checkpoint_is_damaged_is_not_begun_anew(data, tmp_path):
    folder = tmp_path / "run"
    finished(folder, data, train__steps=2)
    DAMAGE["truncated data"](folder / "checkpoints" / "2")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    run = Run(command(folder, data, train__steps=4))
    assert run.end() == 2
    assert run.errors()[-1].startswith(f"error: every checkpoint in {folder / 'checkpoints'} is")
    lock = folder / ".lock"
    after = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert {**after, lock: None} == {**before, lock: None}


@pytest.mark.faults
def test_a_good_run_verifies(short):
    checked = verify(short)
    assert (checked.returncode, checked.stderr) == (0, "")
    assert checked.stdout.splitlines() == [f"checkpoint {step}: good" for step in (2, 4, 6, 8)]


@pytest.mark.faults
def test_a_second_signal_does_not_wait_and_loses_nothing_saved(data, tmp_path):
    """Twice Ctrl-C, at all kinds of distances: one line, code 130, and a run that goes on."""
    folder, straight = tmp_path / "run", tmp_path / "straight"
    for pause in (0.0, 0.02, 0.05, 0.1, 0.2, 0.4):
        run = Run(command(folder, data, train__steps=MANY)).until("step ").until(": saved")
        run.process.send_signal(signal.SIGINT)
        time.sleep(pause)
        assert run.end(signal.SIGINT) == 128 + signal.SIGINT
        (line,) = run.errors()
        assert newest(folder) >= max(run.said("saved"))
        if line != "interrupted; what was saved before is intact":
            step = newest(folder)
            assert line == f"stopped by SIGINT after step {step} (saved); the same command resumes"
    end = newest(folder) + 3
    finished(folder, data, train__steps=end)
    finished(straight, data, train__steps=end)
    assert_same_run(folder, straight, end)


def faulty(fault, at, arguments):
    return [arguments[0], str(ROOT / "tests" / "faulty_train.py"), fault, str(at), *arguments[2:]]


@pytest.mark.faults
def test_a_crash_in_the_loop_waits_for_the_save_under_way(short, data, tmp_path):
    """The fifth batch cannot be read, while step 4 is being saved."""
    changes = {"train__steps": 8, "train__save_every": 4}
    run = Run(faulty("crash", 5, command(tmp_path, data, **changes)))
    assert run.end() == 1
    assert run.errors()[-1] == "RuntimeError: a fault in the loop"
    assert run.lines[-1] == "step 4: saved"
    assert newest(tmp_path) == 4
    finished(tmp_path, data, **changes)
    assert_same_run(tmp_path, short, 8)


@pytest.mark.faults
def test_one_bad_batch_is_skipped_and_counted(data, tmp_path):
    run = Run(faulty("nan", 3, command(tmp_path, data, train__steps=8)))
    assert run.end() == 0
    assert run.errors() == []
    (line,) = [line for line in run.lines if "update skipped" in line]
    assert line.startswith("step 4: update skipped (loss nan, ")
    lines = metrics(tmp_path)
    assert [line["step"] for line in lines if line["loss"] is None] == [4]
    assert [line["skipped"] for line in lines] == [0, 0, 0, 1, 1, 1, 1, 1]
    assert (state(tmp_path / "checkpoints", 8).skipped) == (0, 1)
    # Step 4 was due to be saved, and is not saved before a good update.
    assert run.said("saved") == [2, 5, 6, 8]
