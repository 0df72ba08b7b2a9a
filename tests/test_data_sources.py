"""Digits, NumPy files and names: what they yield, and the one line for each kind of bad input."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from diffusion_jax.data.dataset import Dataset
from diffusion_jax.data.sources import load_dataset, open_source
from diffusion_jax.errors import UserError

ROOT = Path(__file__).parent.parent
IMAGES = np.random.default_rng(0).integers(0, 256, (6, 4, 5, 3), dtype=np.uint8)
LABELS = np.array([0, 2, 1, 1, 0, 2])
EXPECTED = "expected uint8 images [n, h, w, c] or [n, h, w]"


def message(*args, **kwargs) -> str:
    """The line a person sees on opening and reading a data set."""
    with pytest.raises(UserError) as caught:
        load_dataset(*args, **kwargs)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_digits_are_split_into_parts_that_make_the_whole():
    from sklearn.datasets import load_digits

    train, test = load_dataset("digits", "train"), load_dataset("digits", "test")
    assert (train.levels, train.classes) == (17, 10)
    assert train.images.shape == (1437, 8, 8, 1)
    assert test.images.shape == (360, 8, 8, 1)
    both = np.concatenate([train.images, test.images]).reshape(1797, 64)
    rows = np.column_stack([both, np.concatenate([train.labels, test.labels])])
    whole = load_digits()
    expected = np.column_stack([whole.data, whole.target])
    np.testing.assert_array_equal(sorted(map(tuple, rows)), sorted(map(tuple, expected)))
    assert np.bincount(test.labels).min() > 20


def test_a_source_tells_what_it_will_load():
    source = open_source("digits", "test")
    assert (source.shape, source.levels, source.classes, source.size) == ((8, 8, 1), 17, 10, 360)
    np.testing.assert_array_equal(source.load().images, load_dataset("digits", "test").images)


def test_importing_the_sources_is_light():
    heavy = ["jax", "sklearn", "PIL", "tensorflow_datasets", "grain", "tqdm", "psutil"]
    code = f"""
import sys
import diffusion_jax.data.sources
print([name for name in {heavy} if name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("keys", [("images", "labels"), ("arr_0", "arr_1")])
def test_npz_files(tmp_path, save, keys):
    save(tmp_path / "train.npz", **dict(zip(keys, (IMAGES, LABELS), strict=True)))
    save(tmp_path / "test.npz", **{keys[0]: IMAGES[:2]})
    train = load_dataset("arrays", "train", str(tmp_path))
    np.testing.assert_array_equal(train.images, IMAGES)
    np.testing.assert_array_equal(train.labels, LABELS)
    assert (train.levels, train.classes, train.labels.dtype) == (256, 3, np.int32)
    test = load_dataset("arrays", "test", str(tmp_path))
    np.testing.assert_array_equal(test.images, IMAGES[:2])
    assert (test.classes, test.labels.tolist()) == (0, [0, 0])


def test_a_single_npy_file_of_gray_images(tmp_path):
    file = tmp_path / "some.npy"
    np.save(file, IMAGES[..., 0])
    dataset = load_dataset("arrays", "train", str(file))
    np.testing.assert_array_equal(dataset.images, IMAGES[..., :1])
    assert message("arrays", "test", str(file)) == (
        f"the single file '{file}' has no split 'test'; it has: train"
    )


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (
            {"images": IMAGES / 255},
            f"images are float64 [6, 4, 5, 3]; {EXPECTED}; they look like values in [0, 1]: use "
            "np.rint(255 * images).astype(np.uint8)",
        ),
        ({"images": IMAGES[0, 0]}, f"images are uint8 [5, 3]; {EXPECTED}"),
        ({"images": IMAGES[:0]}, f"holds no images; {EXPECTED}"),
        (
            {"pictures": IMAGES},
            "not readable as NumPy arrays (no array 'images' or 'arr_0' among ['pictures']); "
            + EXPECTED,
        ),
        (
            {"images": np.array([{}])},
            "not readable as NumPy arrays (Object arrays cannot be loaded when "
            f"allow_pickle=False); {EXPECTED}",
        ),
        (
            {"images": IMAGES, "labels": LABELS[:4]},
            "labels are int64 [4]; expected whole numbers from 0, of shape [6]; there are 6 images",
        ),
        (
            {"images": IMAGES, "labels": LABELS - 1},
            "labels are int64 [6]; expected whole numbers from 0, of shape [6]; label 0 is -1: use "
            "np.unique(labels, return_inverse=True)[1]",
        ),
    ],
)
def test_arrays_that_are_not_images(tmp_path, content, problem):
    file = tmp_path / "train.npz"
    np.savez(file, **content)
    assert message("arrays", "train", str(tmp_path)) == f"{file}: {problem}"


@pytest.mark.parametrize("name", ["train.npz", "train.npy"])
@pytest.mark.parametrize("kept", [0, 5, 200])
def test_a_truncated_array_file(tmp_path, name, kept):
    file = tmp_path / name
    (np.savez if name.endswith("z") else np.save)(file, IMAGES)
    file.write_bytes(file.read_bytes()[:kept])
    line = message("arrays", "train", str(tmp_path))
    assert line.startswith(f"{file}: not readable as NumPy arrays (")
    assert line.endswith(EXPECTED)


def test_missing_arrays(tmp_path):
    assert message("arrays", "train", str(tmp_path / "no")) == (
        f"--config.data.dir='{tmp_path / 'no'}' is neither a .npz or .npy file nor a folder"
    )
    assert message("arrays", "train", str(tmp_path)) == (
        f"'{tmp_path}' holds neither train.npz nor train.npy"
    )
    np.save(tmp_path / "train.npy", IMAGES)
    assert message("arrays", "test", str(tmp_path)) == (
        f"'{tmp_path}' has no split 'test'; it has: train"
    )


def test_names_and_shapes_that_do_not_exist():
    known = "known: arrays, digits, image_folder, or any image data set of TFDS"
    assert message("mnits") == f"unknown data set 'mnits'; {known} (nearest: mnist, kmnist, emnist)"
    for name in ("CIFAR10", "Cifar-10", "cifar_10"):
        assert "(nearest: cifar10" in message(name)
    assert message("!") == f"unknown data set '!'; {known} (nearest: none)"
    splits = "it has: train, test, fit, validation"
    assert message("digits", "dev") == f"'digits' has no split 'dev'; {splits}"
    assert message("digits", image_size=32) == "'digits' is 8x8; set --config.data.image_size=0"
    assert message("digits", channels=3) == "'digits' has 1 channel; set --config.data.channels=0"
    assert message("cifar10/no_config").startswith("TFDS cannot open 'cifar10/no_config': ")


def test_a_data_set_keeps_within_its_levels_and_classes():
    none = np.zeros(6, np.int32)
    with pytest.raises(UserError, match=r"^the data set holds no images$"):
        Dataset(IMAGES[:0], none[:0], 256, 0)
    with pytest.raises(UserError, match=r"^pixel level \d+ is outside the 17 levels"):
        Dataset(IMAGES, none, 17, 0)
    with pytest.raises(UserError, match=r"^labels 0..2 are outside the 2 classes"):
        Dataset(IMAGES, LABELS, 256, 2)
