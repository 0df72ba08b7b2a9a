"""Folders of images: order, classes, crops, and the one line for each kind of bad input."""

import io
import re
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from diffusion_jax.data import decoding
from diffusion_jax.data.folder_listing import find_splits, list_folder
from diffusion_jax.data.pictures import read_image, read_mask
from diffusion_jax.data.sources import load_dataset, open_source
from diffusion_jax.errors import UserError


def picture(seed, height=6, width=6):
    """Random RGB pixels."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def save(path, pixels):
    """Writes one image file and its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


PIXEL = io.BytesIO()
Image.new("RGB", (2, 2)).save(PIXEL, "png")
PIXEL = PIXEL.getvalue()


def message(folder, split="train", image_size=0, channels=0) -> str:
    """The line a person sees on opening and reading a folder."""
    with pytest.raises(UserError) as caught:
        load_dataset("image_folder", split, str(folder), image_size=image_size, channels=channels)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_images_come_in_the_order_of_their_paths(tmp_path):
    for i in (3, 0, 2, 1):
        save(tmp_path / f"{i}.{['png', 'bmp', 'PNG', 'png'][i]}", picture(i))
    save(tmp_path / ".hidden.png", picture(9))
    (tmp_path / "notes.txt").write_text("no image")
    source = open_source("image_folder", "train", str(tmp_path))
    assert (source.shape, source.levels, source.classes, source.size) == ((6, 6, 3), 256, 0, 4)
    dataset = source.load()
    np.testing.assert_array_equal(dataset.images, [picture(i) for i in range(4)])
    assert dataset.labels.tolist() == [0] * 4


def test_more_images_than_a_chunk_keep_their_places(tmp_path, monkeypatch):
    monkeypatch.setattr(decoding, "CHUNK_IMAGES", 3)
    for i in range(20):
        save(tmp_path / f"{i:02}.png", picture(i))
    images = load_dataset("image_folder", "train", str(tmp_path)).images
    np.testing.assert_array_equal(images, [picture(i) for i in range(20)])


def test_subfolders_are_classes_that_the_splits_share(tmp_path):
    for i, place in enumerate(["train/cat", "train/dog/deep", "train/elk", "test/elk"]):
        save(tmp_path / place / "a.png", picture(i))
    train = load_dataset("image_folder", "train", str(tmp_path))
    assert (train.labels.tolist(), train.classes) == ([0, 1, 2], 3)
    test = load_dataset("image_folder", "test", str(tmp_path))
    assert (test.labels.tolist(), test.classes) == ([2], 3)
    np.testing.assert_array_equal(test.images[0], picture(3))


def test_one_subfolder_is_no_class(tmp_path):
    save(tmp_path / "all" / "a.png", picture(0))
    assert load_dataset("image_folder", "train", str(tmp_path)).classes == 0


def test_crop_takes_the_centre(tmp_path):
    save(tmp_path / "wide.png", picture(0, 4, 10))
    save(tmp_path / "tall.png", picture(1, 9, 4))
    images = load_dataset("image_folder", "train", str(tmp_path), image_size=4).images
    np.testing.assert_array_equal(images[0], picture(1, 9, 4)[2:6])
    np.testing.assert_array_equal(images[1], picture(0, 4, 10)[:, 3:7])


def test_resize_keeps_the_mean_of_a_smooth_image(tmp_path):
    ramp = np.tile(np.linspace(0, 255, 64).astype(np.uint8)[:, None, None], (1, 64, 3))
    save(tmp_path / "ramp.png", ramp)
    image = load_dataset("image_folder", "train", str(tmp_path), image_size=8).images[0]
    blocks = ramp.reshape(8, 8, 64, 3).mean((1, 2))[:, None]
    np.testing.assert_allclose(image[1:-1], np.broadcast_to(blocks, (8, 8, 3))[1:-1], atol=2)


def test_gray_palette_and_alpha_become_what_is_asked_for(tmp_path):
    gray = np.full((5, 5), 77, np.uint8)
    save(tmp_path / "a.png", gray)
    Image.fromarray(gray).convert("P").save(tmp_path / "b.png")
    Image.fromarray(gray).convert("RGBA").save(tmp_path / "c.png")
    rgb = load_dataset("image_folder", "train", str(tmp_path)).images
    assert rgb.shape == (3, 5, 5, 3)
    gray = load_dataset("image_folder", "train", str(tmp_path), channels=1).images
    assert gray.shape == (3, 5, 5, 1)
    assert (rgb == 77).all()
    assert (gray == 77).all()


@pytest.mark.parametrize("kind", ["jpg", "png", "webp"])
def test_photographs_are_turned_upright(tmp_path, kind):
    """Before they are cropped; `exif=False` leaves them as they lie."""
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees, clockwise
    pixels = np.repeat(np.repeat(picture(0, 4, 10) // 64 * 64, 4, 0), 4, 1)
    Image.fromarray(pixels).save(tmp_path / f"a.{kind}", exif=exif, quality=100)
    image = load_dataset("image_folder", "train", str(tmp_path)).images[0]
    assert image.shape == (40, 16, 3)
    lying = load_dataset("image_folder", "train", str(tmp_path), exif=False).images[0]
    np.testing.assert_array_equal(image, np.rot90(lying, -1))
    assert read_image(tmp_path / f"a.{kind}", (40, 16, 3)).shape == (40, 16, 3)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
@pytest.mark.parametrize("kind", ["png", "webp"])
def test_hidden_colours_do_not_show(tmp_path, mode, kind):
    """Transparent pixels are the background's colour, half-transparent ones are mixed with it."""
    rgba = np.full((4, 4, 4), (200, 200, 200, 255), np.uint8)
    rgba[0], rgba[1] = (0, 0, 0, 0), (0, 0, 0, 255)
    if mode != "P":
        rgba[2, :, 3] = 102
    image = Image.fromarray(rgba)
    image = image.quantize(8) if mode == "P" else image.convert(mode)
    image.save(
        tmp_path / f"a.{kind}", **({"lossless": True, "exact": True} if kind == "webp" else {})
    )
    white = load_dataset("image_folder", "train", str(tmp_path)).images[0]
    assert (white[0] == 255).all()
    assert (white[1] == 0).all()
    if mode != "P":
        np.testing.assert_allclose(white[2], 200 * 0.4 + 255 * 0.6, atol=1)
    red = load_dataset("image_folder", "train", str(tmp_path), background="#ff0000").images[0]
    np.testing.assert_array_equal(red[0, 0], [255, 0, 0])
    grey = load_dataset("image_folder", "train", str(tmp_path), channels=1).images[0]
    assert (grey[0] == 255).all()
    as_before = load_dataset("image_folder", "train", str(tmp_path), background="").images[0]
    np.testing.assert_array_equal(as_before[0], np.asarray(image.convert("RGB"))[0])


def test_an_image_of_which_nothing_is_visible_is_named(tmp_path):
    save(tmp_path / "a.png", np.zeros((4, 4, 4), np.uint8))
    assert "it is entirely transparent" in message(tmp_path)


def test_a_background_that_is_no_colour_is_named(tmp_path):
    with pytest.raises(UserError, match=r"config.data.background 'whit' is no colour; give one"):
        open_source("image_folder", "train", str(tmp_path), background="whit")


def test_a_mask_is_what_is_transparent_or_else_what_is_white(tmp_path):
    hole = np.full((4, 4, 4), 255, np.uint8)
    hole[:2, :, 3] = 0
    white = np.zeros((4, 4), np.uint8)
    white[:2] = 255
    upper = (white == 255).astype(float)
    opaque = np.dstack([white, white, white, np.full_like(white, 255)])
    for pixels, area in ((hole, "transparent"), (white, "white"), (opaque, "white")):
        save(tmp_path / "mask.png", pixels)
        mask = read_mask(tmp_path / "mask.png", (4, 4, 1))
        assert mask.area == area
        np.testing.assert_array_equal(mask.repainted[..., 0], upper)
    for value, what in ((0, "nothing"), (255, "everything")):
        save(tmp_path / "mask.png", np.full((4, 4), value, np.uint8))
        with pytest.raises(UserError, match=f"mask.png selects {what}; make the area to repaint"):
            read_mask(tmp_path / "mask.png", (4, 4, 1))


def test_folders_without_images(tmp_path):
    missing = tmp_path / "no"
    assert message(missing) == f"--config.data.dir='{missing}' is not a folder of images"
    (tmp_path / ".hidden.png").touch()
    (tmp_path / "notes.txt").touch()
    assert message(tmp_path).startswith(f"'{tmp_path}' holds no images (.png, .jpg, .jpeg, .jfif")
    assert message(tmp_path).endswith(f"; '{tmp_path}': left out 1 hidden, 1 .txt")


def test_splits_that_are_not_there(tmp_path):
    save(tmp_path / "a.png", picture(0))
    assert message(tmp_path, "test") == (
        f"'{tmp_path}' has no split 'test'; lay it out as {tmp_path}/train and {tmp_path}/test, "
        "or train with --config.data.holdout=0.1"
    )
    assert message(tmp_path, "dev") == f"'{tmp_path}' has no split 'dev'; it has: train"
    save(tmp_path / "own" / "train" / "a.png", picture(0))
    alone = tmp_path / "own"
    assert message(alone, "test") == f"'{alone}' has no split 'test'; it has: train"


def test_images_of_different_sizes(tmp_path):
    for i in range(3):
        save(tmp_path / f"{i}.png", picture(i, 6, 6 + i))
    assert message(tmp_path) == (
        f"{tmp_path}/1.png is 6x7 and 0.png is 6x6; set --config.data.image_size"
    )
    assert load_dataset("image_folder", "train", str(tmp_path), image_size=6).images.shape[0] == 3


@pytest.mark.parametrize("name", ["b.png", "b.jpg", "b.webp", "b.bmp"])
def test_damaged_images_are_named_or_read(tmp_path, name):
    """Whatever happens to the bytes of a file, it is decoded or named, never a traceback."""
    save(tmp_path / "a.png", picture(0))
    broken = save(tmp_path / name, picture(1))
    whole = broken.read_bytes()
    rng = np.random.default_rng(0)
    damaged = [whole[:kept] for kept in (0, 3, 20, len(whole) // 2)]
    for _ in range(100):
        bad = bytearray(whole)
        for place in rng.integers(0, len(bad), 3):
            bad[place] = rng.integers(256)
        damaged.append(bytes(bad))
    lines = []
    for content in damaged:
        broken.write_bytes(content)
        try:
            load_dataset("image_folder", "train", str(tmp_path), image_size=4)
            lines.append("")
        except UserError as error:
            lines.append(str(error))
    form = re.compile(rf"{re.escape(str(broken))}: [^\n]*; (remove|shrink|convert) it[^\n]*")
    assert all(form.fullmatch(line) for line in lines if line)
    assert all(lines[:4]), "cut in two, yet read"


@pytest.mark.parametrize("image_size", [0, 6])
@pytest.mark.parametrize("broken", [[7], [0, 1, 7, 25], [*range(1, 29, 2)], [*range(30)]])
def test_all_broken_images_are_in_one_line(tmp_path, monkeypatch, broken, image_size):
    """Also the first one, which usually gives the shape; one alone is named as before."""
    monkeypatch.setattr(decoding, "CHUNK_IMAGES", 4)
    for i in range(30):
        save(tmp_path / f"{i:02}.png", picture(i))
    for i in broken:
        (tmp_path / f"{i:02}.png").write_text("no image")
    fault = "not a readable PNG, JPEG, WEBP, BMP, GIF, TIFF, PPM image"
    faults = [f"{tmp_path}/{i:02}.png: {fault}" for i in broken]
    more = f"; and {len(broken) - 10} more" if len(broken) > 10 else ""
    assert message(tmp_path, image_size=image_size) == (
        f"{faults[0]}; remove it"
        if len(broken) == 1
        else f"{len(broken)} of 30 images cannot be read: {'; '.join(faults[:10])}{more}; "
        "remove or replace them"
    )


def test_whole_images_are_read_once_and_those_of_a_bad_chunk_again(tmp_path, monkeypatch):
    monkeypatch.setattr(decoding, "CHUNK_IMAGES", 5)
    for i in range(20):
        save(tmp_path / f"{i:02}.png", picture(i))
    (tmp_path / "07.png").write_text("no image")
    source, seen = open_source("image_folder", "train", str(tmp_path), image_size=6), []
    real = decoding.read_pixels
    monkeypatch.setattr(
        decoding, "read_pixels", lambda path, look: seen.append(Path(path).stem) or real(path, look)
    )
    with pytest.raises(UserError, match=r"07\.png: not a readable"):
        source.load()
    twice = [f"{i:02}" for i in (5, 6, 7)]
    assert sorted(seen) == sorted([*(f"{i:02}" for i in range(20)), *twice])


def test_the_size_that_others_differ_from_is_that_of_a_readable_image(tmp_path):
    save(tmp_path / "1.png", picture(0))
    save(tmp_path / "2.png", picture(0, 6, 7))
    (tmp_path / "0.png").write_text("no image")
    source = open_source("image_folder", "train", str(tmp_path))
    with pytest.raises(UserError, match=r"2\.png is 6x7 and 1\.png is 6x6; set"):
        source.read([2])


def test_images_of_16_bits_are_refused(tmp_path):
    save(tmp_path / "a.png", np.full((4, 4), 60000, np.uint16))
    assert message(tmp_path) == (
        f"{tmp_path}/a.png: its pixels have more than 8 bits (mode I;16); convert it to 8 bits, in "
        "NumPy by (pixels / 257).astype(np.uint8)"
    )


def test_data_larger_than_the_memory_are_refused(tmp_path, monkeypatch):
    import psutil

    save(tmp_path / "a.png", picture(0, 10, 10))
    monkeypatch.setattr(psutil, "virtual_memory", lambda: type("", (), {"available": 299})())
    assert message(tmp_path) == (
        f"'{tmp_path}' needs 0.0 GB of memory but 0.0 GB are available; "
        "set --config.data.stream=True to train, or a smaller --config.data.image_size"
    )


def test_channels_are_one_or_three(tmp_path):
    save(tmp_path / "a.png", picture(0))
    assert message(tmp_path, channels=2) == "--config.data.channels=2: images have 1 or 3 channels"


def test_hidden_and_foreign_folders_are_left_out_and_counted(tmp_path):
    """At every depth; they are no classes."""
    left_out = [".ipynb_checkpoints/x.png", "__MACOSX/cat/a.png", "cat/.thumbs/deep/a.png"]
    left_out += ["dog/@eaDir/a.jpg", "lost+found/b.png", "cat/._a.png", "notes.txt", "cat/README"]
    for place in ["cat/a.png", "dog/a.png", *left_out]:
        path = tmp_path / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(PIXEL)
    source = open_source("image_folder", "train", str(tmp_path))
    assert (source.size, source.classes) == (2, 2)
    (note,) = source.notes
    assert note.startswith(f"'{tmp_path}': left out 3 hidden, ")
    for kind in ("1 in '@eaDir'", "1 in '__MACOSX'", "1 in 'lost+found'", "1 .txt"):
        assert kind in note
    assert "1 without extension" in note


def test_splits_are_recognised_by_any_of_their_names(tmp_path):
    for i, place in enumerate(["Train/cat", "Train/dog", "VALID/cat", "testing/dog"]):
        save(tmp_path / place / "a.png", picture(i))
    of = {split: load_dataset("image_folder", split, str(tmp_path)) for split in ("train", "test")}
    assert [len(of[split].images) for split in of] == [2, 1]
    for split in ("validation", "val", "VALID"):
        images = load_dataset("image_folder", split, str(tmp_path)).images
        np.testing.assert_array_equal(images, [picture(2)])
    save(tmp_path / "val" / "cat" / "b.png", picture(5))
    assert "'VALID' and 'val', which are the same split; keep one" in message(tmp_path)


@pytest.mark.parametrize("beside", ["boat/a.png", "a.png"])
def test_a_split_beside_other_images_is_ambiguous(tmp_path, beside):
    """Nothing is left out in silence, and each way out that the line names works."""
    save(tmp_path / "train" / "a.png", picture(0))
    save(tmp_path / beside, picture(1))
    line = message(tmp_path)
    assert line.startswith(f"'{tmp_path}' holds a split (train) and beside it other images (1 ")
    assert f"set --config.data.dir={tmp_path}/train" in line
    assert load_dataset("image_folder", "train", str(tmp_path / "train")).images.shape[0] == 1
    (tmp_path / "train").rename(tmp_path / "railway")
    assert load_dataset("image_folder", "train", str(tmp_path)).images.shape[0] == 2


def test_more_kinds_of_pictures_are_read(tmp_path):
    grey = np.full((4, 4), 100, np.uint8)
    for name, pixels in (("a.tif", grey), ("c.ppm", picture(0, 4, 4)), ("d.tiff", grey)):
        save(tmp_path / name, pixels)
    jpeg = io.BytesIO()
    Image.fromarray(grey).save(jpeg, "jpeg")
    (tmp_path / "e.jfif").write_bytes(jpeg.getvalue())
    frames = [Image.fromarray(np.full((4, 4), value, np.uint8)) for value in (50, 200)]
    frames[0].save(tmp_path / "b.gif", save_all=True, append_images=frames[1:])
    source = open_source("image_folder", "train", str(tmp_path))
    assert source.size == 5
    assert source.notes == (f"'{tmp_path}': of 1 .gif files, the first frames are used",)
    assert (source.load().images[1] == 50).all()


NAMES = st.sampled_from(["cat", "dog", "train", "Test", "val", ".git", "__MACOSX", "deep", "x y"])
FILES = st.sampled_from(["a.png", "b.PNG", "c.txt", ".d.png", "e", "f.tar.gz", "Thumbs.db"])


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.lists(NAMES, max_size=3), FILES), max_size=8))
def test_every_file_is_read_or_counted(places):
    """Of any folder: what is trained on and what is reported left out are all the files there."""
    with tempfile.TemporaryDirectory() as root:
        for folders, name in places:
            path = Path(root, *folders, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(PIXEL)
        there = sum(path.is_file() for path in Path(root).rglob("*"))
        listing = list_folder(Path(root))
        assert len(listing.images) + sum(listing.left_out.values()) == there
        try:
            splits = find_splits(Path(root), listing)
        except UserError:  # ambiguous
            return
        read = sum(
            open_source("image_folder", split, root).size for split in splits if listing.images
        )
        assert read == len(listing.images)
