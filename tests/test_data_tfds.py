"""TFDS without TensorFlow: the whole way from a web server on this machine to decoded pixels."""

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from data_published import SIZES, archive_at, own_builder, published, served
from PIL import Image

from diffusion_jax.data.archives import ARCHIVES
from diffusion_jax.data.dataset import Look
from diffusion_jax.data.decoding import decode_image
from diffusion_jax.data.sources import load_dataset, open_source
from diffusion_jax.data.tfds_prepare import prepare_builder
from diffusion_jax.data.tfds_source import find_builder
from diffusion_jax.errors import UserError

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("name", sorted(ARCHIVES))
def test_what_is_downloaded_is_what_tfds_reads(tmp_path, name, capfd):
    import tensorflow_datasets as tfds

    splits, files = published(name)
    directory = tmp_path / "deep" / "data"
    with served(files) as url:
        prepare_builder(find_builder(name, str(directory)), archive_at(name, url, files))
    assert capfd.readouterr() == ("", "")
    assert [path.name for path in directory.iterdir()] == [name]

    builder = tfds.builder(name, data_dir=str(directory))
    for split, (images, labels) in splits.items():
        dataset = load_dataset(name, split, str(directory))
        plain = list(builder.as_data_source(split=split))
        np.testing.assert_array_equal(dataset.images, [example["image"] for example in plain])
        assert dataset.labels.tolist() == [example["label"] for example in plain]
        assert dataset.levels == 256
        # TFDS shuffles, so that examples are matched by their pixels.
        label_of = {
            image.tobytes(): int(label) for image, label in zip(images, labels, strict=True)
        }
        assert len(label_of) == len(dataset.images) == SIZES[split]
        for image, label, example in zip(dataset.images, dataset.labels, plain, strict=True):
            assert label_of[image.tobytes()] == label
            if "id" in example:
                place = int(example["id"].decode().removeprefix(f"{split}_"))
                np.testing.assert_array_equal(images[place], image)
            if "coarse_label" in example:
                assert example["coarse_label"] == label // 5
    if name.startswith("cifar"):
        assert builder.info.features["label"].names[3] == "class3"


def test_an_unprepared_data_set_is_prepared_on_opening(tmp_path, monkeypatch):
    splits, files = published("mnist")
    with served(files) as url:
        monkeypatch.setitem(ARCHIVES, "mnist", archive_at("mnist", url, files))
        source = open_source("mnist", "test", str(tmp_path))
    assert (source.shape, source.levels, source.classes, source.size) == ((28, 28, 1), 256, 10, 6)
    assert sorted(source.load().labels) == sorted(splits["test"][1])


def test_images_are_resized_and_coloured_on_request(tmp_path):
    _, files = published("cifar10")
    with served(files) as url:
        prepare_builder(find_builder("cifar10", str(tmp_path)), archive_at("cifar10", url, files))
    images = load_dataset("cifar10", "test", str(tmp_path), image_size=16, channels=1).images
    assert images.shape == (6, 16, 16, 1)
    with pytest.raises(UserError, match=r"has no split 'dev'; it has: (train, test|test, train)$"):
        open_source("cifar10", "dev", str(tmp_path))


def test_the_checksums_are_those_tfds_knows():
    import tensorflow_datasets as tfds

    folder = Path(tfds.__file__).parent / "url_checksums"
    for name, archive in ARCHIVES.items():
        lines = (folder / f"{name}.txt").read_text().splitlines()
        known = {line.split("\t")[0]: line.split("\t")[2] for line in lines}
        assert {archive.url + file: sha256 for file, sha256 in archive.files.items()} == known


def png(height, width=8):
    """A random PNG file."""
    pixels = np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def test_other_data_sets_are_prepared_by_tfds(tmp_path):
    import tensorflow_datasets as tfds

    features = {
        "picture": tfds.features.Image(shape=(8, 8, 3)),
        "kind": tfds.features.ClassLabel(num_classes=4),
        "name": tfds.features.Text(),
    }
    files = [png(8), png(8)]
    examples = [{"picture": file, "kind": i, "name": "x"} for i, file in enumerate(files)]
    prepare_builder(own_builder(tmp_path, features, examples))
    source = open_source("own_images", "train", str(tmp_path))
    assert (source.shape, source.classes, source.size) == ((8, 8, 3), 4, 2)
    dataset = source.load()
    np.testing.assert_array_equal(
        dataset.images[0], decode_image(io.BytesIO(files[0]), "", Look(3))
    )
    assert sorted(dataset.labels) == [0, 1]


def test_tensorflow_is_never_imported(tmp_path):
    splits, files = published("mnist")
    with served(files) as url:
        sums = archive_at("mnist", url, files).files
        code = f"""
import dataclasses, sys
from diffusion_jax.data.archives import ARCHIVES
from diffusion_jax.data.sources import load_dataset
ARCHIVES["mnist"] = dataclasses.replace(ARCHIVES["mnist"], url={url!r}, files={sums!r})
sums = [load_dataset("mnist", split, {str(tmp_path)!r}).images.sum() for split in {list(splits)}]
print(*sums, "tensorflow" in sys.modules)
"""
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.stderr == ""
    assert done.stdout.split() == [*(str(images.sum()) for images, _ in splits.values()), "False"]


@pytest.mark.parametrize(
    ("images", "problem"),
    [
        ({}, "has no single image among its features: kind"),
        (
            {"left": (8, 8, 3), "right": (8, 8, 3)},
            "has no single image among its features: kind, left, right",
        ),
        ({"image": (None, 8, 3)}, "has images of different sizes; set --config.data.image_size"),
    ],
)
def test_data_sets_without_one_image_of_one_size(tmp_path, images, problem):
    import tensorflow_datasets as tfds

    features = {name: tfds.features.Image(shape=shape) for name, shape in images.items()}
    features["kind"] = tfds.features.ClassLabel(num_classes=4)
    prepare_builder(own_builder(tmp_path, features, [{"kind": 0} | dict.fromkeys(images, png(8))]))
    with pytest.raises(UserError) as caught:
        open_source("own_images", "train", str(tmp_path))
    assert str(caught.value) == f"TFDS data set 'own_images' {problem}"


def test_images_of_many_sizes_are_cropped_to_one(tmp_path):
    import tensorflow_datasets as tfds

    features = {"image": tfds.features.Image(shape=(None, None, 3))}
    prepare_builder(own_builder(tmp_path, features, [{"image": png(8)}, {"image": png(12)}]))
    dataset = load_dataset("own_images", "train", str(tmp_path), image_size=4)
    assert (dataset.images.shape, dataset.classes) == ((2, 4, 4, 3), 0)


def test_a_damaged_or_foreign_folder_is_named(tmp_path):
    _, files = published("mnist")
    with served(files) as url:
        prepare_builder(find_builder("mnist", str(tmp_path)), archive_at("mnist", url, files))
    (folder,) = (tmp_path / "mnist").iterdir()
    (records,) = folder.glob("mnist-test*")
    records.write_bytes(records.read_bytes()[:-2000])
    with pytest.raises(UserError) as caught:
        load_dataset("mnist", "test", str(tmp_path))
    assert str(caught.value).startswith(f"'mnist' in {folder} is damaged (")
    assert str(caught.value).endswith("; remove it to prepare it again")

    info = folder / "dataset_info.json"
    info.write_text(json.dumps(json.loads(info.read_text()) | {"fileFormat": "tfrecord"}))
    with pytest.raises(UserError) as caught:
        load_dataset("mnist", "test", str(tmp_path))
    assert str(caught.value) == (
        "TFDS data set 'mnist' is stored in a format that needs TensorFlow; set "
        "--config.data.dir to another folder to prepare it again"
    )
