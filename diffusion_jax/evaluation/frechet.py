"""A Fréchet distance for small images that needs no download.

Features are the hidden layer of a small classifier trained on the labels of the training split.
Few images bias the distance upwards, so compare only distances of equally many images.

    classifier = frechet.learn(train, test)
    real = frechet.mean_and_cov(frechet.features(classifier, train.images))
    drawn = frechet.mean_and_cov(frechet.features(classifier, samples))
    frechet.distance(drawn, real)
"""

from typing import NamedTuple

import numpy as np

from diffusion_jax.data.dataset import Dataset

UNITS = 64


class Moments(NamedTuple):
    """Mean `[d]` and covariance `[d, d]` of the features of a set of images."""

    mean: np.ndarray
    cov: np.ndarray


class Classifier(NamedTuple):
    """The layer relu((pixels - mean) / scale @ weights + bias), with p pixels and d units.

    mean: `[p]`; scale: one number; weights: `[p, d]`; bias: `[d]`; all for levels as pixels.
    accuracy: the share of the test split that the classifier recognises.
    """

    mean: np.ndarray
    scale: float
    weights: np.ndarray
    bias: np.ndarray
    accuracy: float


def learn(train: Dataset, test: Dataset) -> Classifier:
    """Train a classifier with one hidden layer; the same data give the same classifier.

    All pixels share one scale, so that pixels that are almost always dark do not outweigh others.

    Args:
        train: the labelled images it learns from.
        test: the labelled images its accuracy is measured on.
    """
    from sklearn.neural_network import MLPClassifier

    pixels = _pixels(train.images)
    mean, scale = pixels.mean(0), float(pixels.std(0).mean())
    network = MLPClassifier((UNITS,), max_iter=1000, random_state=0)
    network.fit((pixels - mean) / scale, train.labels)
    accuracy = float(network.score((_pixels(test.images) - mean) / scale, test.labels))
    return Classifier(mean, scale, network.coefs_[0], network.intercepts_[0], accuracy)


def features(classifier: Classifier, images: np.ndarray) -> np.ndarray:
    """Return the features `[n, d]` of images `[n, h, w, c]`, whose pixels are levels."""
    pixels = (_pixels(images) - classifier.mean) / classifier.scale
    return np.maximum(pixels @ classifier.weights + classifier.bias, 0.0)


def mean_and_cov(values: np.ndarray) -> Moments:
    """Return the mean and the unbiased covariance of features `[n, d]`, n at least 2."""
    return Moments(values.mean(0), np.atleast_2d(np.cov(values, rowvar=False)))


def distance(a: Moments, b: Moments) -> float:
    """Return the Fréchet distance of two Gaussians, the squared 2-Wasserstein distance.

    |m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2)) (Dowson and Landau 1982, eq. 4; Heusel et al.
    2017, eq. 6). The trace of the root is that of (C_a^(1/2) C_b C_a^(1/2))^(1/2), which is
    symmetric.
    """
    var, axes = np.linalg.eigh(a.cov)
    root = axes * np.sqrt(np.maximum(var, 0.0)) @ axes.T
    shared = np.linalg.eigvalsh(root @ b.cov @ root)
    spread = np.trace(a.cov) + np.trace(b.cov) - 2.0 * np.sqrt(np.maximum(shared, 0.0)).sum()
    return float(np.sum(np.square(a.mean - b.mean)) + spread)


def _pixels(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), -1).astype(np.float64)
