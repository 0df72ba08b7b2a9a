"""A Frechet distance for small images that needs no download.

Its features are the hidden layer of a small classifier, trained on the spot on the labels of the
training split. It is biased upwards by few images: compare numbers of equally many.
"""

from typing import NamedTuple

import numpy as np

from diffusion_jax.data.dataset import Dataset

UNITS = 64


class Moments(NamedTuple):
    """Mean and covariance of the features of a set of images."""

    mean: np.ndarray
    cov: np.ndarray


class Judge(NamedTuple):
    """relu((levels - mean) / scale @ weights + bias), and the moments it gives the training split.

    accuracy: of the classifier on the test split.
    """

    mean: np.ndarray
    scale: float
    weights: np.ndarray
    bias: np.ndarray
    accuracy: float
    reference: Moments | None = None

    def moments(self, images: np.ndarray) -> Moments:
        """Of the features of levels `[n, h, w, c]`."""
        pixels = (flat(images) - self.mean) / self.scale
        features = np.maximum(pixels @ self.weights + self.bias, 0.0)
        return Moments(features.mean(0), np.cov(features, rowvar=False))

    def distance(self, images: np.ndarray) -> float:
        """From levels `[n, h, w, c]` to the training split."""
        assert self.reference
        return frechet(self.moments(images), self.reference)

    def floor(self, images: np.ndarray, count: int, repeats: int) -> dict:
        """The distance of `count` real images, taken at random, over repeated draws."""
        rng, count = np.random.default_rng(0), min(count, len(images))
        draws = (rng.permutation(len(images))[:count] for _ in range(repeats))
        values = [self.distance(images[draw]) for draw in draws]
        return {"images": count, "of": len(images), "mean": float(np.mean(values)), "draws": values}


def flat(images: np.ndarray) -> np.ndarray:
    """Levels `[n, h, w, c]` as float64 vectors."""
    return images.reshape(len(images), -1).astype(np.float64)


def frechet(a: Moments, b: Moments) -> float:
    """|m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2)) (Heusel et al. 2017, eq. 6)."""
    var, axes = np.linalg.eigh(a.cov)
    root = axes * np.sqrt(np.maximum(var, 0.0)) @ axes.T
    shared = np.linalg.eigvalsh(root @ b.cov @ root)
    spread = np.trace(a.cov) + np.trace(b.cov) - 2.0 * np.sqrt(np.maximum(shared, 0.0)).sum()
    return float(np.sum(np.square(a.mean - b.mean)) + spread)


def learn(train: Dataset, test: Dataset) -> Judge:
    """Train the classifier on one split and try it on the other; the same every time.

    All pixels share one scale, so that those that are almost always dark do not outweigh the rest.
    """
    from sklearn.neural_network import MLPClassifier

    pixels = flat(train.images)
    mean, scale = pixels.mean(0), float(pixels.std(0).mean())
    classifier = MLPClassifier((UNITS,), max_iter=1000, random_state=0)
    classifier.fit((pixels - mean) / scale, train.labels)
    accuracy = float(classifier.score((flat(test.images) - mean) / scale, test.labels))
    judge = Judge(mean, scale, classifier.coefs_[0], classifier.intercepts_[0], accuracy)
    return judge._replace(reference=judge.moments(train.images))
