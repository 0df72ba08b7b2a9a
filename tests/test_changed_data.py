"""A run recognises its images: others are refused, or allowed; a broken one loses no step."""

import json
import shutil

import numpy as np
import pytest
from own_pictures import own, pictures, script
from PIL import Image
from tiny import run_inside

pytestmark = pytest.mark.usefixtures("hurried_compiler")
ALLOW = "--config.data.changed=allow"


@pytest.fixture(scope="module")
def begun(tmp_path_factory, hurried_compiler):
    """A run of 2 steps and its pictures."""
    place = tmp_path_factory.mktemp("begun")
    pictures(place / "data")
    done = run_inside(script("train", f"--workdir={place / 'run'}", *own(place / "data")))
    assert done.returncode == 0, done.stderr
    return place


@pytest.fixture
def place(begun, tmp_path):
    """A copy of both; the pictures are in another place, which may change."""
    for name in ("run", "data"):
        shutil.copytree(begun / name, tmp_path / name)
    return tmp_path


def resumed(place, *more, steps=3):
    data = place / "data"
    return run_inside(
        script("train", f"--workdir={place / 'run'}", *own(data, train__steps=steps), *more)
    )


def record(place):
    return json.loads((place / "run" / "config.json").read_text())


def other_contents(data):
    Image.fromarray(np.full((8, 8, 3), 7, np.uint8)).save(data / "cat" / "03.png")


def fewer(data):
    (data / "cat" / "03.png").unlink()


def more(data):
    shutil.copy(data / "cat" / "03.png", data / "cat" / "99.png")


def other_names(data):
    (data / "cat" / "03.png").rename(data / "cat" / "33.png")


def other_classes(data):
    (data / "cat").rename(data / "cow")


CHANGES = {
    other_contents: "still 16, but with other names or contents",
    fewer: "16 -> 15 images",
    more: "16 -> 17 images",
    other_names: "still 16, but with other names or contents",
    other_classes: "classes 10, cat, dog -> 10, cow, dog",
}


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_other_images_are_refused_or_allowed_once(place, change):
    before = record(place)
    change(place / "data")
    done = resumed(place)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert f"was trained on other images ({CHANGES[change]})" in done.stderr
    assert "--config.data.changed=allow" in done.stderr
    assert "--init=" in done.stderr
    assert record(place) == before
    done = resumed(place, ALLOW)
    assert done.returncode == 0, done.stderr
    assert (
        f"the images have changed ({CHANGES[change]}); they come in a new order from here on"
        in done.stderr
    )
    after = record(place)
    assert after["fingerprint"] != before["fingerprint"]
    assert after["config"]["data"]["changed"] == "refuse"
    done = resumed(place, steps=4)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_new_class_folder_is_allowed_where_classes_are_not_used(place):
    pictures(place / "data", {"elk": 2})
    done = resumed(place, ALLOW)
    assert done.returncode == 0, done.stderr


def test_a_file_that_cannot_be_read_is_named(place):
    (place / "data" / "cat" / "03.png").unlink()
    (place / "data" / "cat" / "03.png").symlink_to("/proc/self/mem")  # an error when it is read
    done = resumed(place, "--config.data.stream=True")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "03.png" in done.stderr


def test_moved_images_are_the_same(place):
    shutil.move(place / "data", place / "elsewhere")
    shutil.copytree(place / "elsewhere", place / "data")
    assert (resumed(place).returncode, resumed(place).stderr) == (0, "")


def test_a_run_without_a_fingerprint_resumes(place):
    old = record(place)
    del old["fingerprint"]
    (place / "run" / "config.json").write_text(json.dumps(old))
    other_contents(place / "data")
    assert resumed(place).returncode == 0
    assert record(place)["fingerprint"]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_picture_that_breaks_while_streaming_loses_no_step(tmp_path, workers):
    data = pictures(tmp_path / "data", {"cat": 12, "dog": 12})
    stream = {"data__stream": True, "data__workers": workers, "train__save_every": 0}
    (data / "cat" / "05.png").write_text("no image")

    def train(*more):
        changes = own(data, train__steps=6, **stream)
        return run_inside(script("train", f"--workdir={tmp_path / 'run'}", *changes, *more))

    done = train()
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert f"{data / 'cat' / '05.png'}: not a readable" in done.stderr
    lines = [json.loads(line)["step"] for line in (tmp_path / "run" / "metrics.jsonl").open()]
    assert f"step {lines[-1]} is saved" in done.stderr
    assert (tmp_path / "run" / "checkpoints" / str(lines[-1])).is_dir()
    (data / "cat" / "05.png").unlink()  # the advice
    done = train(ALLOW)
    assert done.returncode == 0, done.stderr
    assert f"resuming {tmp_path / 'run'} after step {lines[-1]}" in done.stdout


def test_a_run_resumes_by_its_folder_alone(place):
    done = run_inside(script("train", f"--workdir={place / 'run'}", "--config.train.steps=3"))
    assert done.returncode == 0, done.stderr
    assert f"resuming {place / 'run'} with its own config" in done.stdout
    assert (place / "run" / "checkpoints" / "3").is_dir()


def test_a_held_out_share_is_evaluated(tmp_path):
    data = pictures(tmp_path / "data", {"": 40})
    changes = own(data, data__holdout=0.3, data__split="train[:100%]")
    done = run_inside(script("train", f"--workdir={tmp_path / 'run'}", *changes))
    assert done.returncode == 0, done.stderr
    assert "has no split 'test'" not in done.stdout
    done = run_inside(script("evaluate", f"--workdir={tmp_path / 'run'}"))
    assert (done.returncode, done.stderr) == (0, "")
    (report,) = (tmp_path / "run" / "evaluation").glob("test*.json")
    count = json.loads(report.read_text())["settings"]["images"]
    assert 4 <= count <= 20
    assert record(tmp_path)["images"] == 40 - count
