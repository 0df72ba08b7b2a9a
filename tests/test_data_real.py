"""The published CIFAR-10 and MNIST, where they are prepared on this machine."""

import os
from pathlib import Path

import numpy as np
import pytest

from diffusion_jax.data.sources import load_dataset

DIRECTORY = Path(os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")).expanduser()


def needs(name: str):
    """Skips a test where the data set is not there."""
    return pytest.mark.skipif(not (DIRECTORY / name).is_dir(), reason=f"no {name} in {DIRECTORY}")


@needs("cifar10")
def test_cifar10_is_whole_and_in_the_official_order():
    import tensorflow_datasets as tfds

    train = load_dataset("cifar10", "train", str(DIRECTORY))
    assert train.images.shape == (50000, 32, 32, 3)
    assert np.bincount(train.labels).tolist() == [5000] * 10
    assert train.labels[:10].tolist() == [7, 8, 4, 4, 6, 5, 2, 9, 6, 6]
    # The channel means that every CIFAR-10 recipe quotes.
    means = train.images.mean((0, 1, 2)) / 255
    np.testing.assert_allclose(means, [0.4914, 0.4822, 0.4465], atol=1e-4)

    records = tfds.builder("cifar10", data_dir=str(DIRECTORY)).as_data_source(split="train")
    assert records[0]["id"] == b"train_16399"
    for i in (0, 511, 512, 49999):
        np.testing.assert_array_equal(train.images[i], records[i]["image"])
        assert train.labels[i] == records[i]["label"]


@needs("mnist")
def test_mnist_is_whole_and_in_the_official_order():
    test = load_dataset("mnist", "test", str(DIRECTORY))
    assert test.images.shape == (10000, 28, 28, 1)
    counts = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert np.bincount(test.labels).tolist() == counts
    assert np.isclose(test.images.mean() / 255, 0.1325, atol=1e-4)
    assert test.labels[:5].tolist() == [2, 0, 4, 8, 7]
