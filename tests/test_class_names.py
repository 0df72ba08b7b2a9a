"""Names of classes: kept with the run, shown, and understood."""

import json

import numpy as np
import pytest
from own_pictures import own, pictures, script
from PIL import Image
from tiny import run_inside

import diffusion_jax as dj
from diffusion_jax.errors import UserError
from diffusion_jax.visual.images import labelled_grid

pytestmark = pytest.mark.usefixtures("hurried_compiler")


@pytest.fixture(scope="module")
def run(tmp_path_factory, hurried_compiler):
    """A run on cats, dogs and a class called 10, and what it printed."""
    place = tmp_path_factory.mktemp("names")
    more = {"model__classes": 3, "train__label_dropout": 0.1, "train__sample_every": 2}
    data = pictures(place / "data")
    done = run_inside(script("train", f"--workdir={place / 'run'}", *own(data, **more)))
    assert done.returncode == 0, done.stderr
    return place / "run", done.stdout


def test_training_keeps_and_prints_them(run):
    folder, printed = run
    assert "images per class: 0 = 10: 4, 1 = cat: 8, 2 = dog: 4" in printed
    assert json.loads((folder / "config.json").read_text())["data"]["class_names"] == [
        "10",
        "cat",
        "dog",
    ]
    assert dj.load(folder).data.class_names == ("10", "cat", "dog")
    assert (folder / "samples" / "step_0000002.png").is_file()


def test_a_class_is_given_by_name_or_number(run, tmp_path):
    folder, _ = run

    def drawn(label):
        out = tmp_path / f"{label}.npz"
        done = run_inside(
            script("sample", f"--workdir={folder}", "--num=2", f"--class={label}", f"--out={out}")
        )
        assert done.returncode == 0, done.stderr
        content = np.load(out)
        return content["arr_0"], content["arr_1"].tolist()

    images, labels = drawn("cat")
    assert labels == [1, 1]
    np.testing.assert_array_equal(drawn("1")[0], images)
    assert drawn("10")[1] == [0, 0]  # a name comes before a number
    np.testing.assert_array_equal(dj.load(folder).sample(2, label="cat"), images)


def test_numpys_numbers_are_classes(run):
    model = dj.load(run[0])
    one, other = (model.sample(1, label=label) for label in (np.int64(1), "cat"))
    np.testing.assert_array_equal(one, other)
    with pytest.raises(UserError, match="label is True; expected a whole number"):
        model.sample(1, label=True)


def test_unknown_classes_are_one_line(run):
    folder, _ = run
    for label, problem in {
        "cow": "class cow: the run has the classes 10, cat, dog",
        "3": "class 3: the run has classes 0..2",
        "-1": "class -1: the run has classes 0..2",
    }.items():
        done = run_inside(script("sample", f"--workdir={folder}", f"--class={label}"))
        assert (done.returncode, done.stderr) == (2, f"error: {problem}\n")
    with pytest.raises(UserError, match="the run has the classes 10, cat, dog"):
        dj.load(folder).sample(1, label="cow")


def test_an_npz_without_a_class_has_all_of_them(run, tmp_path):
    folder, _ = run
    run_inside(script("sample", f"--workdir={folder}", "--num=5", f"--out={tmp_path / 'x.npz'}"))
    assert np.load(tmp_path / "x.npz")["arr_1"].tolist() == [0, 1, 2, 0, 1]


def test_rows_have_the_names_that_the_font_can_write():
    images, labels = np.zeros((3, 8, 8, 1), np.uint8), np.array([0, 1, 2])

    def width(names):
        return labelled_grid(images, labels, names).shape[1]

    numbers = width(())
    assert width(("cat", "dog", "elephant")) > numbers
    assert width(("猫", "犬", "象")) == numbers
    assert width(("a" * 500, "b", "c")) < numbers + 400


def test_guidance_may_be_negative(run):
    assert dj.load(run[0]).sample(1, label="cat", guidance=-1.0).shape == (1, 8, 8, 3)


CAUSES = {
    "one class folder": ({"cat": 4}, "has only one class folder, 'cat'; classes need two or more"),
    "a stray picture": (
        {"": 1, "cat": 2, "dog": 2},
        "00.png' lies in no class folder; move it into one",
    ),
    "one split without": (
        {"train/cat": 2, "train/dog": 2, "test": 1},
        "test/00.png' lies in no class folder; move it into one",
    ),
    "one level down": (
        {"all/cat": 2, "all/dog": 2},
        "the class folders (cat, dog, ...) lie one level down; set --config.data.dir=",
    ),
    "no folders": ({"": 4}, "the images have no labels"),
}


@pytest.mark.parametrize("cause", CAUSES)
def test_why_there_are_no_classes(tmp_path, cause):
    kinds, reason = CAUSES[cause]
    data = pictures(tmp_path / "data", kinds)
    command = script("train", f"--workdir={tmp_path / 'run'}", *own(data, model__classes=2))
    done = run_inside(command)
    assert done.returncode == 2
    assert done.stderr.startswith("error: config.model.classes is 2, but ")
    assert reason in done.stderr
    assert not (tmp_path / "run").exists()


def test_an_archive_whose_labels_have_another_name(tmp_path):
    images = np.zeros((4, 8, 8, 1), np.uint8)
    np.savez(tmp_path / "train.npz", images=images, label=np.arange(4))
    settings = dj.config("digits", data={"name": "arrays", "dir": str(tmp_path)})
    with pytest.raises(UserError, match=r"has no array 'labels' or 'arr_1', only label; rename"):
        next(dj.steps(dj.config(settings, model={"classes": 4}, train={"batch_size": 4})))


def test_classes_without_images_are_named(tmp_path):
    images = np.zeros((4, 8, 8, 1), np.uint8)
    np.savez(tmp_path / "train.npz", images=images, labels=np.array([1, 2, 2, 4]))
    changes = {"data__name": "arrays", "data__dir": tmp_path, "data__channels": 1}
    command = script(
        "train", f"--workdir={tmp_path / 'run'}", *own(tmp_path, **changes, model__classes=5)
    )
    done = run_inside(command)
    assert done.returncode == 0, done.stderr
    assert "images per class: 0: 0, 1: 1, 2: 2, 3: 0, 4: 1" in done.stdout
    assert done.stderr.startswith("warning: no images of 2 classes: 0, 3; samples of them would be")


def test_pictures_are_where_names_are(run):
    assert Image.open(run[0] / "samples" / "step_0000002.png").width > 100
