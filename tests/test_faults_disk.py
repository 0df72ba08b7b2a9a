"""Disks that are full, limited or read-only: the run goes on, says so, and loses nothing."""

import errno
import os
import resource
import signal
import subprocess
from contextlib import contextmanager, suppress

import pytest
from faults import (
    MANY,
    Run,
    assert_same_run,
    command,
    digits,
    fill,
    finished,
    names,
    newest,
    small_disk,
)

ENOUGH = 60  # steps: more than are taken before a fault is there and gone again


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return digits(tmp_path_factory.mktemp("data"))


@contextmanager
def full(run, folder):
    ballast = fill(folder.parent)
    yield errno.ENOSPC
    ballast.unlink()


@contextmanager
def limited(run, folder):
    """No file of more than 20 kB: what a quota does, but to each file."""
    before = resource.prlimit(run.process.pid, resource.RLIMIT_FSIZE, (20_000, -1))
    yield errno.EFBIG
    with suppress(ProcessLookupError):
        resource.prlimit(run.process.pid, resource.RLIMIT_FSIZE, before)


@contextmanager
def read_only(run, folder):
    place = folder / "checkpoints"
    subprocess.run(["mount", "--bind", place, place], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", place], check=True)
        yield errno.EROFS
    finally:
        subprocess.run(["umount", "-l", place], check=True)


@pytest.fixture
def disk(tmp_path):
    with small_disk(tmp_path / "disk", "size=4m") as place:
        yield place


def assert_one_line_an_attempt(run, reason, steps):
    """Every save was tried, each said once how it went, and nothing came on stderr."""
    assert sorted([*run.said("saved"), *run.said("NOT saved")]) == steps
    failed = [line for line in run.lines if ": NOT saved" in line]
    assert failed == [f"step {n}: NOT saved: {reason}" for n in run.said("NOT saved")]
    assert failed


def test_a_disk_that_stays_full_ends_with_code_5(data, disk):
    """The steps from before are whole; with room again the run goes on to the same end."""
    folder = disk / "run"
    run = Run(command(folder, data, train__steps=30)).until(": saved")
    with full(run, folder):
        assert run.end() == 5
        (line,) = run.errors()
        reason = os.strerror(errno.ENOSPC)
        assert line == (
            f"error: the state after step 30 could not be saved: {reason}; checkpoint "
            f"{newest(folder)} is intact; fix the cause and run the same command again"
        )
        assert_one_line_an_attempt(run, reason, list(range(2, 31, 2)))
        assert newest(folder) == max(run.said("saved"))
        assert names(folder) == sorted(map(str, run.said("saved")[-3:]))


@pytest.mark.faults
@pytest.mark.parametrize("fault", [full, limited, read_only])
def test_saving_goes_on_when_the_fault_is_over(data, disk, tmp_path, fault):
    folder, straight = disk / "run", tmp_path / "straight"
    run = Run(command(folder, data, train__steps=ENOUGH)).until(": saved")
    with fault(run, folder) as number:
        run.until("NOT saved").until("NOT saved")
    assert run.end() == 0
    assert run.errors() == []
    assert_one_line_an_attempt(run, os.strerror(number), list(range(2, ENOUGH + 1, 2)))
    assert newest(folder) == ENOUGH
    assert names(folder) == [str(n) for n in run.said("saved")[-3:]]
    finished(straight, data, train__steps=ENOUGH, train__save_every=0)
    assert_same_run(folder, straight, ENOUGH)


@pytest.mark.faults
@pytest.mark.parametrize("fault", [full, limited, read_only])
@pytest.mark.parametrize("stop", [signal.SIGTERM, None])
def test_a_fault_that_stays_ends_with_code_5(data, disk, tmp_path, fault, stop):
    """Whether a signal or the last step ends the run; the next start goes on."""
    folder, straight = disk / "run", tmp_path / "straight"
    run = Run(command(folder, data, train__steps=MANY if stop else 20)).until(": saved")
    with fault(run, folder) as number:
        assert run.until("NOT saved").end(stop) == 5
    (line,) = run.errors()
    assert f"could not be saved: {os.strerror(number)}; " in line
    end = newest(folder) + 3
    finished(folder, data, train__steps=end)
    finished(straight, data, train__steps=end, train__save_every=0)
    assert_same_run(folder, straight, end)


@pytest.mark.faults
def test_a_folder_that_cannot_be_written_is_refused(data, tmp_path):
    """Read-only or full from the start: one line, before anything is computed."""
    for options, reason in (("ro", "is not a writable folder"), ("size=4k", "No space left")):
        with small_disk(tmp_path / "disk", options) as place:
            if options != "ro":
                (place / "ballast").write_bytes(bytes(os.statvfs(place).f_bavail * 4096))
            done = subprocess.run(command(place / "run", data), capture_output=True, text=True)
            assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
            assert reason in done.stderr
