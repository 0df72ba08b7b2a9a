"""Images of any number of channels train, sample and evaluate; pictures show a tile a channel."""

import json

import numpy as np
import pytest
from own_pictures import own, script
from PIL import Image
from tiny import run_inside

from diffusion_jax.visual.images import as_pictures, grid, save_png

pytestmark = pytest.mark.usefixtures("hurried_compiler")


@pytest.mark.parametrize("channels", [2, 5])
def test_channels_become_tiles(channels, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (3, 4, 6, channels), dtype=np.uint8)
    shown = as_pictures(images)
    for c in range(channels):
        np.testing.assert_array_equal(shown[:, :, 7 * c : 7 * c + 6, 0], images[..., c])
    assert (shown[:, :, 6::7] == 255).all()
    assert grid(images).shape[-1] == 1
    save_png(tmp_path / "x.png", images[0])
    assert Image.open(tmp_path / "x.png").mode == "L"


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_pictures_stay_as_they_are(channels):
    images = np.zeros((2, 4, 4, channels), np.uint8)
    assert as_pictures(images) is images


def test_five_channels_from_training_to_evaluation(tmp_path):
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        np.save(tmp_path / f"{split}.npy", rng.integers(0, 256, (8, 8, 8, 5), dtype=np.uint8))
    changes = {"data__name": "arrays", "data__channels": 5, "train__sample_every": 2}
    run = tmp_path / "run"
    done = run_inside(script("train", f"--workdir={run}", *own(tmp_path, **changes)))
    assert done.returncode == 0, done.stderr
    assert (run / "samples" / "step_0000002.png").is_file()
    for out in ("x.npz", "x.png", "folder/"):
        command = script(
            "sample",
            f"--workdir={run}",
            "--num=2",
            f"--out={tmp_path / out}/"[: None if out.endswith("/") else -1],
        )
        done = run_inside([*command, f"--strip={tmp_path / 'strip.png'}"])
        assert done.returncode == 0, done.stderr
    assert np.load(tmp_path / "x.npz")["arr_0"].shape == (2, 8, 8, 5)
    assert Image.open(tmp_path / "folder" / "000000.png").size == (5 * 8 + 4, 8)
    done = run_inside(script("evaluate", f"--workdir={run}", "--num=2"))
    assert done.returncode == 0, done.stderr
    (report,) = (run / "evaluation").glob("*.json")
    assert json.loads(report.read_text())["bits_per_dim"]["total"]["mean"] > 0
    assert len(list((run / "evaluation").glob("*.png"))) == 4
    assert not list((run / "evaluation").glob("*.parts"))
    Image.new("RGB", (8, 8)).save(tmp_path / "rgb.png")
    done = run_inside(script("sample", f"--workdir={run}", f"--from={tmp_path / 'rgb.png'}"))
    assert done.returncode == 2
    assert "the run's images have 5 channels, and picture files have 1, 3 or 4" in done.stderr
