"""`export-images`: the files hold exactly what is trained on, or nothing is written over."""

import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny import run_program

from diffusion_jax.commands import export_images
from diffusion_jax.commands.outputs import Whole
from diffusion_jax.data.sources import load_dataset
from diffusion_jax.data.transforms import to_unit_range
from diffusion_jax.visual.images import to_uint8

RNG = np.random.default_rng(0)


called = partial(run_program, "export-images")


def pngs(folder):
    """The images of a folder, in the order of their names, [n, h, w, c]."""
    files = sorted(folder.glob("*.png"))
    assert [path.name for path in files] == [f"{i:06d}.png" for i in range(len(files))]
    images = np.stack([np.asarray(Image.open(path)) for path in files])
    return images.reshape(*images.shape[:3], -1)


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def photos(tmp_path):
    """70 pictures of two classes, of several sizes, one of them transparent."""
    folder = tmp_path / "photos"
    for i in range(70):
        path = folder / ("cat" if i % 3 else "dog") / f"{i:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = RNG.integers(0, 256, (8 + i % 3, 9, 4 if i == 5 else 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    return folder


@pytest.mark.parametrize("channels", [1, 3])
def test_a_folder_and_an_archive_hold_what_is_trained_on(photos, tmp_path, channels):
    config = ["--config=image_folder", f"--config.data.dir={photos}"]
    config += ["--config.data.image_size=8", f"--config.data.channels={channels}"]
    for out in ("real/", "real.npz"):
        done = called(*config, f"--out={tmp_path}/{out}")
        assert (done.returncode, done.stderr) == (0, "")
        assert f"wrote 70 images 8x8x{channels} of split 'train' to {tmp_path}" in done.stdout
    wanted = load_dataset("image_folder", "train", str(photos), image_size=8, channels=channels)
    np.testing.assert_array_equal(pngs(tmp_path / "real"), wanted.images)
    with np.load(tmp_path / "real.npz") as content:
        assert {*content} == {"arr_0", "arr_1"}
        assert content["arr_0"].dtype == np.uint8
        np.testing.assert_array_equal(content["arr_0"], wanted.images)
        np.testing.assert_array_equal(content["arr_1"], wanted.labels)
    assert {path.suffix for path in (tmp_path / "real").iterdir()} == {".png", ".json"}
    again = load_dataset("arrays", "train", str(tmp_path / "real.npz"))
    np.testing.assert_array_equal(again.labels, wanted.labels)


def test_few_levels_are_scaled_as_in_pictures_of_samples(tmp_path):
    assert called("--config=digits", "--split=test", f"--out={tmp_path}/x.npz").returncode == 0
    test = load_dataset("digits", "test")
    images = np.load(tmp_path / "x.npz")["arr_0"]
    np.testing.assert_array_equal(images, to_uint8(np.asarray(to_unit_range(test.images, 17))))
    assert {*np.unique(images)} == {*np.rint(np.arange(17) * 255 / 16).astype(int)}


def test_256_levels_stay_as_they_are():
    levels = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(to_uint8(np.asarray(to_unit_range(levels, 256))), levels)


def test_images_without_classes_have_no_labels(tmp_path):
    np.save(tmp_path / "x.npy", RNG.integers(0, 256, (5, 4, 6, 5), dtype=np.uint8))
    config = ["--config=default", "--config.data.name=arrays", "--config.data.channels=0"]
    config += [f"--config.data.dir={tmp_path}/x.npy"]
    assert called(*config, f"--out={tmp_path}/y.npz").returncode == 0
    with np.load(tmp_path / "y.npz") as content:
        assert {*content} == {"arr_0"}
        np.testing.assert_array_equal(content["arr_0"], np.load(tmp_path / "x.npy"))
    done = called(*config, f"--out={tmp_path}/real/")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "the images have 5 channels, and PNG files have 1, 3 or 4" in done.stderr


def test_samples_and_exports_have_one_layout(tmp_path):
    """Of both, `Whole` writes the archive: images, and classes if there are any."""
    images = RNG.integers(0, 256, (3, 4, 4, 1), dtype=np.uint8)
    for labels, keys in ((None, {"arr_0"}), (np.array([2, 0, 1]), {"arr_0", "arr_1"})):
        out = Whole(tmp_path / "x.npz")
        out.add([0, 1, 2], images, labels)
        out.finish()
        with np.load(tmp_path / "x.npz") as content:
            assert {*content} == keys


def test_a_stopped_export_goes_on_and_is_whole(tmp_path):
    out = tmp_path / "real"
    assert called("--config=digits", "--num=100", f"--out={out}/").returncode == 0
    (out / "000003.png").unlink()
    (out / "000070.png").unlink()
    there = {path: path.stat().st_mtime_ns for path in out.glob("*.png")}
    done = called("--config=digits", "--num=130", f"--out={out}/")
    assert done.returncode == 0, done.stderr
    assert all(path.stat().st_mtime_ns == before for path, before in there.items())
    table = np.rint(np.arange(17) * 255 / 16).astype(np.uint8)
    np.testing.assert_array_equal(pngs(out), table[load_dataset("digits").images[:130]])
    done = called("--config=digits", "--num=130", f"--out={out}/")
    assert done.stdout == f"{out} has all 130 images; nothing to do\n"


def test_an_export_keeps_a_bounded_number_of_images(photos, tmp_path, monkeypatch):
    """Batches go to the folder before the next ones are read."""
    monkeypatch.setattr(export_images, "BATCH", 16)
    read, real = [], export_images._batches

    def watched(source, wanted):
        for batch in real(source, wanted):
            read.append(len(list((tmp_path / "real").glob("*.png"))))
            yield batch

    monkeypatch.setattr(export_images, "_batches", watched)
    config = ["--config=image_folder", f"--config.data.dir={photos}"]
    assert called(*config, f"--out={tmp_path}/real/").returncode == 0
    assert read == [0, 16, 32, 48, 64]


@pytest.mark.parametrize("name", ["holiday.png", "holiday.JPG", "000000.webp"])
def test_a_folder_of_other_pictures_is_refused(tmp_path, name):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / name).write_text("")
    done = called("--config=digits", "--num=3", f"--out={tmp_path}/full")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert f"holds other pictures ({name}); use another folder" in done.stderr
    assert called("--config=digits", "--num=3", f"--out={tmp_path}/own/").returncode == 0
    (tmp_path / "own" / name).write_text("")
    before = contents(tmp_path)
    done = called("--config=digits", "--num=3", f"--out={tmp_path}/own/")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "holds more pictures" in done.stderr
    assert contents(tmp_path) == before


def test_fewer_images_than_a_folder_holds_are_refused(tmp_path):
    """A tool that reads the folder would read them all."""
    out = f"--out={tmp_path}/x/"
    assert called("--config=digits", "--num=3", out).returncode == 0
    done = called("--config=digits", "--num=2", out)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "holds more pictures (000002.png) than the 2 images" in done.stderr


@pytest.mark.parametrize(
    ("change", "differ"),
    [
        ("--split=test", "images, split"),
        ("--config.data.image_size=8", "image_size"),
        ("--config.data.exif=False", "exif"),
    ],
)
def test_a_folder_of_another_export_is_refused(tmp_path, change, differ):
    out = f"--out={tmp_path}/x/"
    assert called("--config=digits", "--num=3", out).returncode == 0
    assert called("--config=digits", "--num=3", out, "--config.data.flip=True").returncode == 0
    before = contents(tmp_path)
    done = called("--config=digits", "--num=3", out, change)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert f"({differ} differ); choose another folder" in done.stderr
    assert contents(tmp_path) == before


def test_the_folder_of_an_export_is_no_folder_of_samples(tmp_path):
    from diffusion_jax.commands.outputs import open_output
    from diffusion_jax.errors import UserError

    assert called("--config=digits", "--num=3", f"--out={tmp_path}/x/").returncode == 0
    with pytest.raises(UserError, match="holds images of another source"):
        open_output(f"{tmp_path}/x/", {"run": "digits", "seed": 0})
    samples = open_output(f"{tmp_path}/y/", {"run": "digits", "seed": 0})
    samples.add([0], np.zeros((1, 2, 2, 1), np.uint8), None)
    done = called("--config=digits", "--num=3", f"--out={tmp_path}/y/")
    assert "holds images of another source" in done.stderr


@pytest.mark.parametrize("out", ["real/", "real.npz"])
def test_all_broken_images_are_named_in_one_line(photos, tmp_path, out):
    for name in ("cat/01.png", "cat/70.png", "dog/69.png"):
        (photos / name).write_text("no image")
    done = called("--config=image_folder", f"--config.data.dir={photos}", f"--out={tmp_path}/{out}")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "error: 3 of 71 images cannot be read: " in done.stderr
    assert all(name in done.stderr for name in ("cat/01.png", "cat/70.png", "dog/69.png"))
    assert "Traceback" not in done.stderr
    left = [path.name for path in tmp_path.rglob("*") if path.suffix in (".npz", ".part")]
    assert not left
    assert not list((tmp_path / "real").glob("*")) if out == "real/" else True


BAD = {
    "no config": ("--out={0}/x/", "the following arguments are required: --config"),
    "no out": ("--config=digits", "the following arguments are required: --out"),
    "a picture": ("--config=digits --out={0}/x.png", "expected a folder, or a name ending in .npz"),
    "a gif": ("--config=digits --out={0}/x.gif", "x.gif: expected a name ending in .png or .npz"),
    "in a file": ("--config=digits --out={0}/file/x", "cannot write"),
    "too many": (
        "--config=digits --num=1438 --out={0}/x/",
        "--num 1438: split 'train' has only 1437 images",
    ),
    "none": ("--config=digits --num=0 --out={0}/x/", "must be at least 1"),
    "split": ("--config=digits --split=dev --out={0}/x/", "has no split 'dev'"),
    "range": ("--config=digits --config.data.workers=-1 --out={0}/x/", "data.workers"),
    "folder": ("--config=image_folder --out={0}/x/", "set --config.data.dir"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_exit_code_2(case, tmp_path):
    (tmp_path / "file").touch()
    arguments, message = BAD[case]
    done = called(*arguments.format(tmp_path).split())
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert message in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_an_archive_larger_than_the_memory_is_refused(tmp_path, monkeypatch):
    import psutil

    monkeypatch.setattr(psutil, "virtual_memory", lambda: type("", (), {"available": 1000})())
    done = called("--config=digits", f"--out={tmp_path}/x.npz")
    assert done.returncode == 2
    assert "give a folder instead, --out=FOLDER/" in done.stderr
    assert called("--config=digits", "--num=2", f"--out={tmp_path}/x/").returncode == 0


def test_as_a_program(tmp_path):
    command = [sys.executable, "-m", "diffusion_jax", "export-images", "--config=digits"]
    root = Path(__file__).parent.parent
    done = subprocess.run(
        [*command, "--num=3", f"--out={tmp_path}/x/"], cwd=root, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert len(pngs(tmp_path / "x")) == 3
