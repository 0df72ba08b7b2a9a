"""Data brought to a bare machine: packed without loss, or some of TFDS's shards."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.accelerator import data
from diffusion_jax.data.dataset import Dataset
from diffusion_jax.data.sources import open_source
from diffusion_jax.errors import UserError

ROOT = Path(__file__).parent.parent
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
@pytest.mark.parametrize("count", [1, 128, 257])
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
    assert_same(open_source("arrays", "train", str(folder), channels=3).load(), given.train)
    test = open_source("arrays", "test", str(folder), channels=3).load()
    np.testing.assert_array_equal(test.images, given.test.images)
    np.testing.assert_array_equal(test.labels, given.test.labels)


def test_what_arrays_cannot_say_is_not_written(tmp_path):
    few = data.Data("noise", drawn(1, 3), drawn(3, 3), 65)
    for given, problem in ((data.open_data("digits"), "digits has 17 levels"), (few, "7 classes")):
        with pytest.raises(UserError, match=problem):
            data.as_arrays(given, tmp_path)
    assert not list(tmp_path.iterdir())


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


def test_every_flipped_bit_is_harmless_or_reported(tmp_path):
    given = data.Data("noise", drawn(2, 1), drawn(1, 1), 9)
    content, file = data.packed(given), tmp_path / "x.pack"
    for i in range(len(content)):
        file.write_bytes(content[:i] + bytes([content[i] ^ 1]) + content[i + 1 :])
        try:
            found = data.open_data(str(file))
        except UserError:
            continue
        assert_same(found.train, given.train)
        assert_same(found.test, given.test)
        assert found.line == given.line


def test_digits_are_packed_within_a_size_or_not_at_all(tmp_path):
    out = tmp_path / "deep" / "x.pack"
    with pytest.raises(UserError, match=r"--most 0.01; about \d+ training images fit$"):
        data.pack(Path("digits"), out, 1000, most_mib=0.01)
    with pytest.raises(UserError, match="--pack 1438: digits holds 1437 training images"):
        data.pack(Path("digits"), out, 1438, most_mib=None)
    with pytest.raises(UserError, match="cannot write"):
        data.pack(Path("digits"), Path(__file__) / "x.pack", 5, most_mib=None)
    assert not list(out.parent.iterdir())
    line = data.pack(Path("digits"), out, 1000, most_mib=1)
    assert line.endswith("digits: 1,000 of 1,437 training images, 360 test images")
    found, given = data.open_data(str(out)), data.open_data("digits")
    assert_same(found.test, given.test)
    np.testing.assert_array_equal(found.train.images, given.train.images[:1000])


def test_packed_data_are_read_without_tfds_and_flax(tmp_path):
    (tmp_path / "x.pack").write_bytes(data.packed(data.Data("noise", drawn(9, 3), drawn(3, 3), 9)))
    code = """
import sys
for name in ("absl", "array_record", "flax", "google", "ml_collections", "optax", "orbax", "psutil",
             "tensorflow_datasets", "tqdm"):
    sys.modules[name] = None
from benchmarks.accelerator import data
print(data.open_data(sys.argv[1]).line, data.open_data("digits").line, sep="\\n")
"""
    command = [sys.executable, "-c", code, str(tmp_path / "x.pack")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "noise: 9 of 9 training images, 3 test images",
        "digits: 1,437 of 1,437 training images, 360 test images",
    ]


def test_a_path_without_data_is_refused(tmp_path):
    for path in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(UserError, match="neither a packed file nor a folder of TFDS"):
            data.open_data(str(path))


@real
def test_real_images_are_packed_within_a_size_or_not_at_all(tmp_path, monkeypatch):
    monkeypatch.setattr(data, "TESTED", 100)
    out, folder = tmp_path / "x.pack", CIFAR10.parent
    with pytest.raises(UserError, match=r"than --most 0.3; about \d+ training images fit"):
        data.pack(folder, out, 200, most_mib=0.3)
    assert not list(tmp_path.iterdir())
    line = data.pack(folder, out, 200, most_mib=2)
    assert line.endswith("cifar10: 200 of 50,000 training images, 100 test images")
    found = data.open_data(str(out))
    for split, count in (("train", 200), ("test", 100)):
        images, labels = open_source("cifar10", split, str(folder)).read(range(count))
        assert_same(getattr(found, split), Dataset(images, labels, 256, 10))


def some_shards(folder: Path) -> Path:
    """CIFAR-10's test shards 0 and 2 of 3 as `train`, 1 as `test`: small files that are real."""
    to = folder / "cifar10" / "3.0.2"
    to.mkdir(parents=True)
    for i, split in enumerate(("train", "test", "train")):
        rest = f"array_record-0000{i}-of-00003"
        shutil.copyfile(CIFAR10 / f"3.0.2/cifar10-test.{rest}", to / f"cifar10-{split}.{rest}")
    info = json.loads((CIFAR10 / "3.0.2" / "dataset_info.json").read_text())
    for each in info["splits"]:
        each["shardLengths"] = ["3333", "3334", "3333"]
    (to / "dataset_info.json").write_text(json.dumps(info))
    return to


@real
def test_some_shards_are_read_in_their_order_and_counted(tmp_path):
    some_shards(tmp_path)
    found = data.open_data(str(tmp_path))
    assert found.line == "cifar10: 6,666 of 10,000 training images, 3,334 test images"
    whole = open_source("cifar10", "test", str(CIFAR10.parent)).load()
    parts = np.split(np.arange(10_000), [3333, 6667])
    for dataset, indices in (
        (found.train, np.concatenate([parts[0], parts[2]])),
        (found.test, parts[1]),
    ):
        assert_same(dataset, Dataset(whole.images[indices], whole.labels[indices], 256, 10))


@real
def test_damaged_and_missing_shards_are_named(tmp_path):
    to = some_shards(tmp_path)
    shard = to / "cifar10-train.array_record-00002-of-00003"
    content = shard.read_bytes()
    for size in (0, 1000, 65536, 1_000_000, len(content) - 10):
        shard.write_bytes(content[:size])
        with pytest.raises(UserError, match=r"a shard of 'train' in .* is damaged \(.+\); copy"):
            data.open_data(str(tmp_path))
    shard.write_bytes(content[:2_000_000] + b"damage" + content[2_000_006:])
    with pytest.raises(UserError, match="is damaged"):
        data.open_data(str(tmp_path))
    (to / "cifar10-test.array_record-00001-of-00003").unlink()
    shard.unlink()
    with pytest.raises(UserError, match=f"no shard of the split 'test' in {to}; copy one there"):
        data.open_data(str(tmp_path))
    for description in ("{", "{}", "[]"):
        (to / "dataset_info.json").write_text(description)
        with pytest.raises(UserError, match=r"dataset_info.json is damaged \(.+\); copy it again"):
            data.open_data(str(tmp_path))
