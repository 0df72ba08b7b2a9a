"""Arrays of another type or shape: one line says what they look like and how to convert them."""

import numpy as np
import pytest

from diffusion_jax.data.arrays import from_arrays
from diffusion_jax.errors import UserError

RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.integers(0, 256, (6, 12, 12, 3), dtype=np.uint8)
IMAGES[0, 0, 0] = 0, 255, 128
LABELS = np.array([0, 1, 2, 0, 1, 2])
FIRST = IMAGES.transpose(0, 3, 1, 2)

WRONG = {
    "[n, c, h, w]": FIRST,
    "[n, c, h, w] with values in [0, 1]": FIRST / 255.0,
    "values in [0, 1]": (IMAGES / 255.0).astype(np.float32),
    "values in [-1, 1]": IMAGES / 127.5 - 1.0,
    "values in 0..255": IMAGES.astype(np.int64),
    "16-bit values": IMAGES.astype(np.uint16) * 257,
    "flattened images (not images.reshape(-1, 12, 12, 3))": FIRST.reshape(6, -1),
    "flattened images (not images.reshape(-1, 12, 12, 3)) with values in 0..255": FIRST.reshape(
        6, -1
    ).astype(np.float64),
}


def problem(images, labels=None) -> str:
    with pytest.raises(UserError) as caught:
        from_arrays(images, labels)
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize("looks", WRONG)
def test_the_advised_line_makes_the_images(looks):
    text = problem(WRONG[looks])
    found, _, line = text.rpartition(": use ")
    assert found.endswith(f"they look like {looks}")
    converted = eval(line, {"np": np, "images": WRONG[looks]})
    np.testing.assert_array_equal(from_arrays(converted).images, IMAGES)


def test_one_image_is_not_twelve_grey_ones():
    text = problem(IMAGES[0])
    assert text.endswith(
        "one image [h, w, c] and not grey ones, images[..., None]: use images[None]"
    )


def test_masks_of_true_and_false():
    text = problem(IMAGES > 127)
    line = text.rpartition(": use ")[2]
    converted = eval(line, {"np": np, "images": IMAGES > 127})
    np.testing.assert_array_equal(from_arrays(converted).images, 255 * (IMAGES > 127))


@pytest.mark.parametrize(
    "shape", [(6, 8, 8, 5), (6, 1, 9, 8), (6, 3, 3, 3), (6, 28, 28), (100, 28, 4), (100, 128, 1)]
)
def test_unusual_images_are_images(shape):
    assert len(from_arrays(np.zeros(shape, np.uint8)).images) == shape[0]


NAMES = np.array(["dog", "cat", "cat", "dog", "elk", "cat"])
LABELLED = {
    "they look like a column": (LABELS[:, None], LABELS),
    "they look one-hot": (np.eye(3)[LABELS], LABELS),
    "they look like names": (NAMES, np.array([1, 0, 0, 1, 2, 0])),
    "they look like whole numbers": (LABELS.astype(np.float32), LABELS),
    "label 0 is -1": (LABELS - 1, LABELS),
    "label 2 is 2000000, which implies too many classes": (LABELS * 1_000_000, LABELS),
}


@pytest.mark.parametrize("looks", LABELLED)
def test_the_advised_line_makes_the_labels(looks):
    given, expected = LABELLED[looks]
    text = problem(IMAGES, given)
    found, _, line = text.rpartition(": use ")
    assert found.endswith(looks)
    converted = eval(line, {"np": np, "labels": given})
    np.testing.assert_array_equal(from_arrays(IMAGES, converted).labels, expected)


def test_labels_of_other_images():
    assert problem(IMAGES, LABELS[:4]).endswith(
        "[4]; expected whole numbers from 0, of shape [6]; there are 6 images"
    )
