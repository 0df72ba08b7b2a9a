"""Curves that a person looks at: drawn, whole, and of what was given."""

import numpy as np
import pytest
from PIL import Image

from diffusion_jax.visual import curves

T = list(range(20))
BITS = np.exp(-np.arange(20.0) / 3.0)
DRAWN = {
    "bits_per_t": lambda path, scale: curves.bits_per_t(path, T, list(scale * BITS)),
    "cumulative": lambda path, scale: curves.cumulative(path, T, list(scale * BITS), 0.1),
    "rate_distortion": lambda path, scale: curves.rate_distortion(
        path, list(scale * BITS), list(100.0 - 4.0 * np.arange(20.0))
    ),
}


@pytest.mark.parametrize("name", DRAWN)
def test_a_curve_is_a_picture_of_its_numbers(name, tmp_path):
    pictures = []
    for scale in (1.0, 1.0, 3.0):
        DRAWN[name](tmp_path / "x.png", scale)
        pictures.append(np.asarray(Image.open(tmp_path / "x.png").convert("L"), float))
    assert pictures[0].shape == (480, 768)
    np.testing.assert_array_equal(pictures[0], pictures[1])
    assert np.abs(pictures[0] - pictures[2]).max() > 50.0
    assert [path.name for path in tmp_path.iterdir()] == ["x.png"]
