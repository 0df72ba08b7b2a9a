"""Paths of users: `~` is the home folder, addresses of buckets are refused."""

from pathlib import Path

import pytest
from own_pictures import own, pictures, script
from tiny import DIGITS, flags, run_inside

import diffusion_jax as dj
from diffusion_jax.commands.outputs import open_output
from diffusion_jax.errors import UserError
from diffusion_jax.paths import as_path

pytestmark = pytest.mark.usefixtures("hurried_compiler")


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home folder; the current folder is another one."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_the_home_folder_wherever_a_path_is_given(home):
    pictures(home / "data", {"": 12})
    (home / "own.py").write_text(DIGITS.read_text())
    done = run_inside(script("train", "--workdir=~/run", *own("~/data", train__steps=1)))
    assert done.returncode == 0, done.stderr
    for out in ("~/x.png", "~/folder/", "~/y.npz"):
        done = run_inside(script("sample", "--workdir=~/run", "--num=1", f"--out={out}"))
        assert done.returncode == 0, done.stderr
        assert (home / out[2:]).exists()
    assert dj.load("~/run").step == 1
    assert dj.config("~/own.py").name == "digits"
    assert not list((home / "elsewhere").iterdir())


ADDRESSES = {
    "gs://bucket/run": "mount it (gcsfuse bucket FOLDER) and give the path of a local folder",
    "s3://bucket/run": "mount it (mount-s3 bucket FOLDER) and give the path of a local folder",
    "hf://some/model": "read and written; give the path of a local folder",
}


@pytest.mark.parametrize("address", ADDRESSES)
def test_addresses_are_refused_in_one_line(home, address):
    commands = {
        "--workdir": script("train", f"--workdir={address}", *flags()),
        "data.dir": script("train", "--workdir=run", *own(address)),
        "--config": script("train", f"--config={address}"),
    }
    for command in commands.values():
        done = run_inside(command)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert ADDRESSES[address] in done.stderr
    with pytest.raises(UserError, match="is an address"):
        open_output(f"{address}/x.png", {})
    with pytest.raises(UserError, match="is an address"):
        dj.load(address)
    assert not list(Path.cwd().iterdir())


def test_what_is_no_path():
    with pytest.raises(UserError, match="a path is empty"):
        as_path("")
    with pytest.raises(UserError, match="write the path without ~"):
        as_path("~nobody_of_this_name/x")
    assert as_path("C:/x") == Path("C:/x")
