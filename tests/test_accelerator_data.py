"""Data brought to a bare machine: packed without loss, or some of TFDS's shards."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from benchmarks.accelerator import data
from diffusion_jax.data.dataset import Dataset
from diffusion_jax.data.sources import open_source
from diffusion_jax.errors import UserError

CIFAR10 = Path(os.environ.get("TFDS_DATA_DIR", "")) / "cifar10"
real = pytest.mark.skipif(
    not os.environ.get("TFDS_DATA_DIR") or not CIFAR10.is_dir(), reason="no CIFAR-10 prepared"
)


def drawn(count: int, channels: int) -> Dataset:
    rng = np.random.default_rng(count)
    images = rng.integers(256, size=(count, 6, 10, channels)).astype(np.uint8)
    return Dataset(images, rng.integers(7, size=count).astype(np.int32), 256, 7)


def assert_same(one: Dataset, other: Dataset) -> None:
    np.testing.assert_array_equal(one.images, other.images)
    np.testing.assert_array_equal(one.labels, other.labels)
    assert (one.levels, one.classes) == (other.levels, other.classes)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("count", [1, 64, 65])
def test_what_is_packed_comes_out_bit_for_bit(tmp_path, count, channels):
    given = data.Data("noise", drawn(count, channels), drawn(3, channels), 1234)
    (tmp_path / "x.pack").write_bytes(data.packed(given))
    found = data.open_data(str(tmp_path / "x.pack"))
    assert_same(found.train, given.train)
    assert_same(found.test, given.test)
    assert found.line == f"noise: {count} of 1,234 training images, 3 test images"


def test_arrays_are_what_the_project_reads(tmp_path):
    given = data.Data("noise", drawn(65, 3), drawn(3, 3), 65)
    folder = data.as_arrays(given, tmp_path / "deep" / "folder")
    for split in data.SPLITS:
        read = open_source("arrays", split, str(folder), channels=3).load()
        np.testing.assert_array_equal(read.images, getattr(given, split).images)
        np.testing.assert_array_equal(read.labels, getattr(given, split).labels)
        assert read.levels == 256


@pytest.mark.parametrize("damage", ["cut", "flipped", "text", "empty"])
def test_a_damaged_file_is_one_line(tmp_path, damage):
    content = bytearray(data.packed(data.Data("noise", drawn(9, 3), drawn(3, 3), 9)))
    if damage == "flipped":
        content[200] ^= 1
    files = {"cut": content[:-60], "flipped": content, "text": b"images", "empty": b""}
    (tmp_path / "x.pack").write_bytes(files[damage])
    with pytest.raises(UserError, match=r"x.pack is no packed file, or damaged") as caught:
        data.open_data(str(tmp_path / "x.pack"))
    assert len(str(caught.value).splitlines()) == 1


def test_a_path_without_data_is_refused(tmp_path):
    for path in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(UserError, match="neither a packed file nor a folder of TFDS"):
            data.open_data(str(path))


@real
def test_a_real_data_set_is_packed_within_a_size_or_not_at_all(tmp_path):
    out, folder = tmp_path / "x.pack", CIFAR10.parent
    with pytest.raises(UserError, match=r"than --most 2; about 2\d\d training images fit"):
        data.pack(folder, out, 600, most_mib=2)
    with pytest.raises(UserError, match="holds 50000 training images"):
        data.pack(folder, out, 50_001, most_mib=None)
    assert not list(tmp_path.iterdir())
    line = data.pack(folder, out, 600, most_mib=3)
    assert line.endswith("cifar10: 600 of 50,000 training images, 1,000 test images")
    found = data.open_data(str(out))
    for split, count in (("train", 600), ("test", 1000)):
        images, labels = open_source("cifar10", split, str(folder)).read(range(count))
        np.testing.assert_array_equal(getattr(found, split).images, images)
        np.testing.assert_array_equal(getattr(found, split).labels, labels)


@real
def test_some_shards_are_read_in_their_order_and_counted(tmp_path):
    to = tmp_path / "cifar10" / "3.0.2"
    to.mkdir(parents=True)
    for name in ("dataset_info.json", "cifar10-test.array_record-00001-of-00003"):
        shutil.copy(CIFAR10 / "3.0.2" / name, to)
    with pytest.raises(UserError, match="no shard of the split 'train'"):
        data.open_data(str(tmp_path))
    for i in (0, 2):
        shutil.copy(CIFAR10 / "3.0.2" / f"cifar10-train.array_record-0000{i}-of-00003", to)
    found = data.open_data(str(tmp_path))
    assert found.line == "cifar10: 33,334 of 50,000 training images, 3,334 test images"
    source = open_source("cifar10", "train", str(CIFAR10.parent))
    for mine, theirs in ((16_666, 16_666), (16_667, 33_333), (33_333, 49_999)):
        images, labels = source.read([theirs])
        np.testing.assert_array_equal(found.train.images[mine], images[0])
        assert found.train.labels[mine] == labels[0]
    shard = to / "cifar10-train.array_record-00002-of-00003"
    shard.write_bytes(shard.read_bytes()[:1_000_000])
    with pytest.raises(UserError, match=r"a shard of 'train' in .* is damaged"):
        data.open_data(str(tmp_path))
