"""`check-data`: every file is accounted for, every fault is named, the data stay as they are."""

import io
import shlex
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tiny import run_program

from diffusion_jax.data.contact_sheet import MOST, ROW, chosen
from diffusion_jax.data.dataset import Look
from diffusion_jax.data.inspection import duplicates, inspect_arrays, inspect_folder
from diffusion_jax.data.sources import load_dataset, open_source
from diffusion_jax.errors import UserError

LOOK = Look(3, 8)
RNG = np.random.default_rng(0)


def pixels(height=8, width=8, channels=3):
    return RNG.integers(0, 256, (height, width, channels), dtype=np.uint8)


def save(path, image, **options):
    """Writes one image file and its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = image if isinstance(image, Image.Image) else Image.fromarray(image.squeeze())
    image.save(path, **options)
    return path


called = partial(run_program, "check-data")


def lines(done) -> dict[str, str]:
    """The facts that were printed, by their names."""
    return dict(line.split(": ", 1) for line in done.stdout.splitlines() if ": " in line)


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def pets(tmp_path):
    """Two classes, two splits, and one of everything that can be special."""
    root = tmp_path / "my pets"
    for i in range(4):
        save(root / "train" / "cat" / f"{i}.png", pixels())
        save(root / "train" / "dog" / f"{i}.jpg", pixels(10, 20))
    save(root / "train" / "dog" / "grey.png", pixels(5, 5, 1))
    save(root / "train" / "dog" / "see_through.png", pixels(channels=4))
    exif = Image.Exif()
    exif[0x0112] = 6
    save(root / "test" / "cat" / "turned.jpg", pixels(12, 16), exif=exif)
    frames = [Image.fromarray(np.full((8, 8), value, np.uint8)) for value in (50, 200)]
    save(root / "test" / "dog" / "moving.gif", frames[0], save_all=True, append_images=frames[1:])
    (root / "notes.txt").touch()
    return root


def test_a_report_has_every_fact_and_the_command_that_trains(pets, tmp_path):
    before, sheet = contents(pets), tmp_path / "sheets" / "pets.png"
    done = called(pets, f"--out={sheet}", "--config.data.image_size=16")
    assert (done.returncode, done.stderr) == (0, "")
    said = lines(done)
    assert said[str(pets)] == "13 files = 12 images + 0 that cannot be read + 1 left out"
    assert said["kinds"] == ".png 6, .jpg 5, .gif 1"
    assert said["modes"] == "RGB 9, P 1, L 1, RGBA 1"
    assert said["sizes (width x height)"] == (
        "4 different; smallest 5x5, most common 8x8 (6 images), largest 20x10"
    )
    assert said["smaller than 16x16"] == "12, will be enlarged"
    assert said["split train"] == "10 images; classes 0 = cat: 4, 1 = dog: 6"
    assert said["split test"] == "2 images; classes 0 = cat: 1, 1 = dog: 1"
    assert said["animated"].startswith("1, ")
    assert said["rotated"].startswith("1, ")
    assert said["transparent"] == "1, put on white"
    assert said["duplicates"] == "none"
    assert said[f"'{pets}'"] == "left out 1 .txt"
    assert said["contact sheet"] == f"{sheet}, 10 of 10 images of split train"
    assert contents(pets) == before
    assert Image.open(sheet).size[0] > 6 * 16  # the longer row has six dogs
    command = shlex.split(said["next"])
    assert command[:3] == ["diffusion-jax", "train", "--config=image_folder"]
    assert {*command[3:]} == {f"--config.data.dir={pets}", "--config.data.image_size=16"}


def test_the_classes_and_sizes_are_those_of_training(pets):
    found = inspect_folder(pets, LOOK)
    for split in ("train", "test"):
        dataset = load_dataset("image_folder", split, str(pets), image_size=8)
        mine = [item for item in found.items if item.split == split]
        assert [item.label for item in mine] == dataset.labels.tolist()
    assert found.classes == ["cat", "dog"]
    train = load_dataset("image_folder", "train", str(pets), image_size=8)
    np.testing.assert_array_equal(found.sheet.images, train.images)
    np.testing.assert_array_equal(found.sheet.labels, train.labels)


def test_files_that_cannot_be_read_are_named_and_counted(pets, tmp_path):
    for i in range(11):
        (pets / "train" / "cat" / f"bad{i:02}.png").write_text("no image")
    save(pets / "train" / "cat" / "deep.png", np.full((4, 4), 60000, np.uint16))
    done = called(pets, f"--out={tmp_path / 'x.png'}")
    assert done.returncode == 2
    assert done.stderr == (
        "error: 12 of 24 images cannot be read (see above); remove or replace them\n"
    )
    assert "next:" not in done.stdout
    assert lines(done)[str(pets)] == "25 files = 12 images + 12 that cannot be read + 1 left out"
    assert "I;16 1" in lines(done)["modes"]
    listed = [line for line in done.stdout.splitlines() if line.startswith("  train/cat/bad")]
    assert listed == [
        f"  train/cat/bad{i:02}.png: not a readable PNG, JPEG, WEBP, BMP, GIF, TIFF, PPM image"
        for i in range(10)
    ]
    assert "\n  and 2 more\n" in done.stdout
    assert (tmp_path / "x.png").exists()


def test_a_folder_of_broken_images_alone_is_told_once(tmp_path):
    for name in ("a.png", "b.jpg"):
        (tmp_path / name).write_text("no image")
    done = called(tmp_path, f"--out={tmp_path.parent / 'none.png'}")
    assert done.returncode == 2
    assert (
        done.stderr == "error: 2 of 2 images cannot be read (see above); remove or replace them\n"
    )
    assert lines(done)["contact sheet"] == "none, as no image can be read"
    assert not (tmp_path.parent / "none.png").exists()


def test_equal_pixels_are_found_across_formats_and_splits(pets, tmp_path):
    image = pixels()
    for place in ("train/cat/a.png", "train/dog/b.bmp", "test/dog/c.tif"):
        save(pets / place, image)
    other = image.copy()
    other[0, 0, 0] ^= 1
    save(pets / "train/cat/d.png", other)
    done = called(pets, f"--out={tmp_path / 'x.png'}")
    assert done.returncode == 0
    said = lines(done)
    three = "test/dog/c.tif = train/cat/a.png = train/dog/b.bmp"
    assert said["duplicates"] == f"2 with the same pixels as another image: {three}"
    assert said["leak between splits"] == (
        "1 image; keep each in one split only, so that training never sees test images: "
        "test/dog/c.tif = train/dog/b.bmp"
    )
    (pets / "test/dog/c.tif").unlink()
    done = called(pets, f"--out={tmp_path / 'x.png'}")
    assert lines(done)["duplicates"].startswith("1 with the same pixels as another")
    assert "leak" not in done.stdout


NAMES = st.sampled_from(["cat", "dog", "train", "Test", ".git", "__MACOSX", "deep"])
FILES = st.sampled_from(["a.png", "b.PNG", "bad.png", "bad.jpg", "c.txt", ".d.png", "e"])
PIXEL = io.BytesIO()
Image.new("RGB", (2, 2)).save(PIXEL, "png")


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.lists(NAMES, max_size=2), FILES), max_size=8))
def test_every_file_is_an_image_or_unreadable_or_left_out(places):
    """And training accepts a folder if, and only if, nothing is refused or unreadable."""
    with tempfile.TemporaryDirectory() as root:
        for folders, name in places:
            path = Path(root, *folders, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"no image" if name.startswith("bad") else PIXEL.getvalue())
        there = sum(path.is_file() for path in Path(root).rglob("*"))
        found = inspect_folder(Path(root), LOOK)
        broken = [item.name for item in found.items if item.fault]
        readable = sum(item.fault == "" for item in found.items)
        assert readable + len(broken) + found.left_out == there
        assert all(Path(name).name.startswith("bad") for name in broken)
        splits = {item.split for item in found.items}
        try:
            read = sum(len(load_dataset("image_folder", s, root).images) for s in splits)
        except UserError:
            assert broken or found.refused
        else:
            assert read == readable
            assert not broken
            assert not found.refused


def test_a_layout_that_training_refuses_is_reported_and_refused(tmp_path):
    save(tmp_path / "data" / "train" / "a.png", pixels())
    save(tmp_path / "data" / "b.png", pixels(9, 8))
    done = called(tmp_path / "data", f"--out={tmp_path / 'x.png'}")
    assert done.returncode == 2
    assert "holds a split (train) and beside it other images" in done.stderr
    assert done.stderr.count("\n") == 1
    assert "2 files = 2 images" in done.stdout
    assert "split" not in done.stdout
    (tmp_path / "data" / "b.png").rename(tmp_path / "data" / "train" / "b.png")
    assert called(tmp_path / "data", f"--out={tmp_path / 'x.png'}").returncode == 0
    done = called(tmp_path / "data", f"--out={tmp_path / 'x.png'}", "--config.data.image_size=0")
    assert done.returncode == 2
    assert done.stderr == (
        "error: the images have 2 different sizes; set --config.data.image_size\n"
    )
    done = called(tmp_path / "data", f"--out={tmp_path / 'x.png'}", "--config.data.split=test")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "has no split 'test'; it has: train" in done.stderr


def test_nothing_is_written_into_the_data_folder(pets, tmp_path, monkeypatch):
    before = contents(tmp_path)
    for out in (pets / "x.png", pets / "new" / "x.png", pets / "train" / ".." / "x.png"):
        done = called(pets, f"--out={out}")
        assert (done.returncode, done.stdout) == (2, "")
        assert "would lie in the data folder; give another place" in done.stderr
    monkeypatch.chdir(pets)
    done = called(".")
    assert done.returncode == 2
    assert "such as --out=../contact_sheet.png" in done.stderr
    assert contents(tmp_path) == before
    done = called(".", "--out=../contact_sheet.png")
    assert done.returncode == 0
    assert contents(tmp_path).keys() - before.keys() == {tmp_path / "contact_sheet.png"}


def test_names_cannot_write_to_the_terminal(tmp_path):
    for name in ("a\n\x1b[2J.png", "b\n\x1b[2J.png"):
        save(tmp_path / "data" / name, np.zeros((4, 4, 3), np.uint8), format="png")
    (tmp_path / "data" / "c\x1b[2J.png").touch()
    done = called(tmp_path / "data", f"--out={tmp_path / 'x.png'}")
    assert done.returncode == 2
    assert "\x1b" not in done.stdout + done.stderr
    assert r"a\n\x1b[2J.png = b\n\x1b[2J.png" in done.stdout


def test_arrays(tmp_path):
    images = RNG.integers(0, 17, (30, 28, 28), dtype=np.uint8)
    images[7] = images[3]
    (tmp_path / "data").mkdir()
    np.savez(tmp_path / "data" / "train.npz", images=images, labels=np.arange(30) % 3)
    np.savez(tmp_path / "data" / "test.npz", images=images[5:7], labels=[0, 1])
    done = called(tmp_path / "data", f"--out={tmp_path / 'x.png'}")
    assert (done.returncode, done.stderr) == (0, "")
    said = lines(done)
    assert said[str(tmp_path / "data")] == "32 images"
    assert said["sizes (width x height)"] == "all 28x28"
    assert said["levels"] == "17 of 256 are used, 0 to 16"
    assert said["split train"] == "30 images; classes 0: 10, 1: 10, 2: 10"
    assert said["split test"] == "2 images; classes 0: 1, 1: 1, 2: 0"
    three = "3 with the same pixels as another image: train[3] = train[7]"
    assert said["duplicates"].startswith(three)
    assert "train[5] = test[0]" in said["leak between splits"]
    config = open_config(said["next"])
    assert (config.data.name, config.data.dir) == ("arrays", str(tmp_path / "data"))
    data = config.data
    source = open_source(data.name, "train", data.dir, data.image_size, data.channels)
    assert source.shape == (28, 28, 1)


def open_config(command):
    """The configuration that a printed training command would use."""
    from diffusion_jax.command_line import split_overrides
    from diffusion_jax.configuration import load

    (name, *rest), overrides = split_overrides(shlex.split(command)[2:])
    assert not rest
    return load(name.removeprefix("--config="), overrides)


@pytest.mark.parametrize(
    ("shape", "name"),
    [
        ((64, 64), "image_folder"),
        ((28, 28), "mnist"),
        ((6, 10), "digits"),
        ((7, 10), "digits"),
    ],
)
def test_the_config_for_arrays_has_a_network_that_takes_them(tmp_path, shape, name):
    from diffusion_jax import build

    np.save(tmp_path / "x.npy", RNG.integers(0, 256, (3, *shape, 3), dtype=np.uint8))
    command = lines(called(tmp_path / "x.npy", f"--out={tmp_path / 'x.png'}"))["next"]
    config = open_config(command)
    assert f"--config={name} " in command
    build.diffusion(config, build.source(config).spec)


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("side", [8, 100])
def test_arrays_of_any_shape_have_a_sheet(tmp_path, channels, side):
    np.save(tmp_path / "x.npy", RNG.integers(0, 256, (3, side, 50, channels), dtype=np.uint8))
    found = inspect_arrays(tmp_path / "x.npy")
    large = (64, 64) if channels in (1, 3, 4) else (64, 50)  # others are cut, not resized
    assert found.sheet.images.shape[1:] == (*((8, 50) if side == 8 else large), channels)
    assert called(tmp_path / "x.npy", f"--out={tmp_path / 'x.png'}").stderr == ""
    assert not duplicates(found.items)


def test_a_sheet_is_bounded_and_even():
    assert chosen(np.zeros(5)).tolist() == [0, 1, 2, 3, 4]
    many = chosen(np.zeros(100_000))
    assert len(many) == MOST
    assert (many[0], many[-1]) == (0, 99_999)
    assert np.ptp(np.diff(many)) <= 1
    few = np.repeat([0, 1, 2], [1000, 10, 1])
    assert np.bincount(few[chosen(few)]).tolist() == [ROW, 10, 1]
    classes = np.repeat(np.arange(1000), 3)
    assert len(np.unique(classes[chosen(classes)])) == len(chosen(classes)) == MOST


BAD = {
    "nothing there": ("{0}/none", "none' does not exist; give a folder of images, or a .npz or"),
    "another file": ("{0}/notes.txt", "notes.txt' is not a .npz or .npy file; give such"),
    "no images": ("{0}/empty", "empty' holds no images (.png, .jpg"),
    "out is no png": ("{0}/empty --out={0}/x.jpg", "x.jpg: expected a name ending in .png"),
    "out in a file": ("{0}/empty --out={0}/notes.txt/x.png", "cannot write"),
    "config": ("{0}/empty --config=nonsense", "no config 'nonsense'"),
    "key": ("{0}/empty --config.data.image_sise=3", "the nearest is 'data.image_size'"),
    "colour": ("{0}/empty --config.data.background=whit", "'whit' is no colour"),
    "channels": ("{0}/one --config.data.channels=2", "channels=2: images have 1 or 3 channels"),
    "no place": ("", "the following arguments are required: FOLDER_OR_FILE"),
    "float arrays": ("{0}/float.npy", "float.npy: images are float64 [2, 4, 4]; expected uint8"),
    "broken arrays": ("{0}/broken.npz", "broken.npz: not readable as NumPy arrays"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_exit_code_2(case, tmp_path, monkeypatch):
    (tmp_path / "notes.txt").touch()
    (tmp_path / "empty").mkdir()
    save(tmp_path / "one" / "a.png", pixels())
    np.save(tmp_path / "float.npy", np.zeros((2, 4, 4)))
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04 no archive")
    monkeypatch.chdir(tmp_path)
    arguments, message = BAD[case]
    done = called(*arguments.format(tmp_path).split())
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert message in done.stderr
    assert not list(tmp_path.glob("*.part"))


def test_the_module_names_itself_in_the_next_command(pets, tmp_path):
    command = [sys.executable, "-m", "diffusion_jax", "check-data", "my pets"]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(Path(__file__).parent.parent)},
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert (
        "\nnext: python -m diffusion_jax train --config=image_folder "
        "'--config.data.dir=my pets'\n" in done.stdout
    )
    assert (tmp_path / "contact_sheet.png").exists()
