"""Slices of splits, and the share of the images that is held out for testing."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from diffusion_jax.configuration import config
from diffusion_jax.data.dataset import Dataset, loaded
from diffusion_jax.data.sources import load_dataset, open_source
from diffusion_jax.data.splits import parse_split, sliced
from diffusion_jax.errors import UserError
from diffusion_jax.run.steps import configured


def source(size):
    """Images whose level is their index."""
    images = np.arange(size, dtype=np.uint8).reshape(-1, 1, 1, 1)
    return loaded(Dataset(images, np.arange(size, dtype=np.int32) % 3, 256, 3))


def members(part):
    return part.load().images.ravel().tolist()


@given(st.integers(1, 200), st.integers(0, 100))
def test_two_complementary_slices_make_the_whole(size, percent):
    whole = source(size)
    first, second = (parse_split(f"train[{text}]") for text in (f":{percent}%", f"{percent}%:"))
    indices = np.arange(size)
    parts = [*indices[first.indices(size)], *indices[second.indices(size)]]
    assert parts == list(range(size))
    for split in (first, second):
        if len(indices[split.indices(size)]) == 0:
            with pytest.raises(UserError, match=f"none of the {size} images"):
                sliced(whole, split)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("train", range(20)),
        ("train[:]", range(20)),
        ("train[5:7]", range(5, 7)),
        ("train[-3:]", range(17, 20)),
        ("train[-25%:]", range(15, 20)),
        ("train[10%:20%]", range(2, 4)),
        ("train[15:99]", range(15, 20)),
    ],
)
def test_slices(text, expected):
    part = sliced(source(20), parse_split(text))
    assert members(part) == list(expected)
    assert part.labels is not None
    assert part.labels.tolist() == [i % 3 for i in expected]
    images, _ = part.read([0, part.size - 1])
    assert images.ravel().tolist() == [expected[0], expected[-1]]
    assert part.names == [str(i) for i in expected]


@pytest.mark.parametrize("text", ["train[", "train[1]", "train[:5.5%]", "[:3]", "train[a:b]", ""])
def test_what_is_no_split(text):
    with pytest.raises(UserError, match="is not understood; write it as train, train"):
        parse_split(text)


def test_the_digits_own_parts_are_slices():
    train = load_dataset("digits", "train").images
    np.testing.assert_array_equal(load_dataset("digits", "fit").images, train[:1150])
    np.testing.assert_array_equal(load_dataset("digits", "validation").images, train[1150:])
    np.testing.assert_array_equal(load_dataset("digits", "train[80%:]").images, train[1150:])


def pictures(folder, names):
    for i, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4), (i, 0, 0)).save(folder / name)


def test_a_held_out_share_is_a_split_that_stays(tmp_path):
    names = [f"{kind}/{i:03}.png" for kind in ("cat", "dog") for i in range(100)]
    pictures(tmp_path, names)

    def held(split):
        part = open_source("image_folder", split, str(tmp_path), holdout=0.2)
        assert part.splits == ("train", "test")
        assert part.class_names == ("cat", "dog")
        return part.names

    train, test = held("train"), held("test")
    assert sorted([*train, *test]) == names
    assert 20 <= len(test) <= 60
    pictures(tmp_path, [f"cat/new{i}.png" for i in range(50)])
    assert set(test) <= set(held("test"))
    assert set(train) <= set(held("train"))


def test_a_held_out_share_must_make_sense(tmp_path):
    pictures(tmp_path, ["a.png", "b.png"])

    def line(name, split, directory, share):
        with pytest.raises(UserError) as caught:
            open_source(name, split, directory, holdout=share)
        return str(caught.value)

    assert "holds out none of the 2 images; set it higher" in line(
        "image_folder", "test", str(tmp_path), 1e-9
    )
    assert "has a split 'test' of its own; set it to 0" in line("digits", "train", "", 0.1)
    assert "there are 'train' and 'test'" in line("image_folder", "dev", str(tmp_path), 0.5)


def test_a_fingerprint_sees_names_sizes_and_contents(tmp_path):
    pictures(tmp_path, [f"{i}.png" for i in range(5)])

    def now():
        return open_source("image_folder", "train", str(tmp_path)).fingerprint

    before = now()
    assert now() == before
    (tmp_path / "4.png").rename(tmp_path / "5.png")
    renamed = now()
    (tmp_path / "5.png").rename(tmp_path / "4.png")
    assert now() == before != renamed
    Image.new("RGB", (4, 4), (9, 9, 9)).save(tmp_path / "2.png")
    assert now() != before
    assert source(9).fingerprint == source(9).fingerprint != source(10).fingerprint


def test_a_source_whose_images_are_loaded_is_the_same(tmp_path):
    pictures(tmp_path, ["cat/a.png", "dog/b.png"])
    found = open_source("image_folder", "train", str(tmp_path))
    dataset = found.load()
    held = found.holding(dataset)
    assert held.load() is dataset
    assert (held.fingerprint, held.spec) == (found.fingerprint, found.spec)


def test_parts_of_the_digits_own_parts():
    fit = load_dataset("digits", "fit").images
    np.testing.assert_array_equal(load_dataset("digits", "fit[:10]").images, fit[:10])
    last = load_dataset("digits", "validation[-10%:]").images
    np.testing.assert_array_equal(last, load_dataset("digits", "validation").images[-len(last) :])


def test_slices_of_folders_have_all_classes(tmp_path):
    pictures(tmp_path, [f"{kind}/{i:03}.png" for kind in ("cat", "dog") for i in range(50)])
    first, rest = (
        open_source("image_folder", split, str(tmp_path))
        for split in ("train[:70%]", "train[70%:]")
    )
    assert sorted([*first.names, *rest.names]) == sorted(
        open_source("image_folder", "train", str(tmp_path)).names
    )
    for part in (first, rest):
        assert np.bincount(part.labels).min() >= 0.3 * part.size
        assert part.names == sorted(part.names)


def test_images_of_the_caller_are_held_out_too():
    images = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 1), dtype=np.uint8)
    own = configured(config("digits", data={"holdout": 0.5}), images)[1]
    part = configured(config("digits", data={"split": "train[:10]"}), images)[1]
    assert 5 <= own.size <= 35
    assert part.size == 10
