"""Batches in which all classes are equally frequent."""

import numpy as np
import pytest

from diffusion_jax.data.batches import Order, balanced_indices, by_class

LABELS = np.array([0] * 30 + [2] * 3 + [5] * 7, np.int32)
CLASSES = by_class(LABELS)


def stream(batch_size, steps, seed=0):
    return [balanced_indices(seed, step, batch_size, CLASSES) for step in range(steps)]


@pytest.mark.parametrize("batch_size", [3, 12, 7])
def test_classes_without_regard_to_their_size_are_equally_frequent(batch_size):
    seen = np.zeros(6)
    for batch in stream(batch_size, 21):
        counts = np.bincount(LABELS[batch], minlength=6)[[0, 2, 5]]
        assert counts.max() - counts.min() <= 1
        seen += np.bincount(LABELS[batch], minlength=6)
    assert seen[[0, 2, 5]].tolist() == [7 * batch_size] * 3


@pytest.mark.parametrize("steps", [1, 10, 30])
def test_the_images_of_a_class_take_turns(steps):
    shown = np.bincount(np.concatenate(stream(6, steps)), minlength=40)
    for own in CLASSES:
        assert shown[own].sum() == 2 * steps
        assert shown[own].max() - shown[own].min() <= 1


def test_class_and_place_in_the_batch_are_independent():
    """Otherwise a class would see only its own noise levels, as t depends on the place."""
    first = [LABELS[batch[0]] for batch in stream(3, 60)]
    assert np.bincount(first, minlength=6)[[0, 2, 5]].min() >= 10


def test_a_batch_depends_on_seed_and_step_alone():
    order = Order(4, 8, len(LABELS), CLASSES)
    once = order.batch(11)
    order.batch(0)
    np.testing.assert_array_equal(order.batch(11), once)
    assert not np.array_equal(once, order._replace(seed=5).batch(11))
