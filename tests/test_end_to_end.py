"""Shipped configs, their networks shrunk, from data on disk to pictures."""

import json
import os
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from data_published import archive_at, published, served
from PIL import Image
from tiny import ROOT

from configs.cifar10 import VARIANTS
from diffusion_jax.commands import evaluate, sample, train
from diffusion_jax.data.tfds_prepare import prepare_builder
from diffusion_jax.data.tfds_source import find_builder

pytestmark = pytest.mark.usefixtures("hurried_compiler")

REAL = Path(os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")).expanduser()
SMALL = [
    "--config.model.channels=4",
    "--config.model.multipliers=1,2",
    "--config.model.blocks=1",
    "--config.model.attention_resolutions=8",
    "--config.schedule.steps=50",
    "--config.train.batch_size=4",
    "--config.train.log_every=1",
    "--config.train.sample_every=0",
    "--config.optimizer.warmup_steps=2",
]
# Half of what there is to compile: the network itself is trained by the first test.
ONE_LEVEL = [
    "--config.model.multipliers=1,",
    "--config.model.attention_resolutions=99",
    "--config.model.dropout=0",
]


@pytest.fixture(scope="module")
def tfds_folder(tmp_path_factory):
    """Where CIFAR-10 is: the published one, or a small one that TFDS itself wrote."""
    if (REAL / "cifar10").is_dir():
        return REAL
    folder = tmp_path_factory.mktemp("tfds")
    _, files = published("cifar10")
    with served(files) as url:
        prepare_builder(find_builder("cifar10", str(folder)), archive_at("cifar10", url, files))
    return folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A folder of 6 pictures of different sizes."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for i in range(6):
        pixels = rng.integers(0, 256, (20 + i, 30, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    return folder


def flags(config, folder, data, *more):
    return [
        f"--config={ROOT / 'configs' / config}",
        f"--workdir={folder}",
        f"--config.data.dir={data}",
        *SMALL,
        *more,
    ]


def losses(folder):
    return [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").open()]


def test_cifar10_trains_resumes_under_pmap_and_samples(tfds_folder, tmp_path):
    run, straight = tmp_path / "run", tmp_path / "straight"

    def go(folder, steps, *more):
        # The test split is read five times as fast.
        given = [f"--config.train.steps={steps}", "--config.data.split=test", *more]
        train.main(flags("cifar10.py", folder, tfds_folder, *given))

    go(run, 3)
    go(run, 6, "--config.parallel=pmap")
    go(straight, 6)
    np.testing.assert_allclose(losses(run), losses(straight), rtol=1e-5)
    out = tmp_path / "images.npz"
    sample.main([f"--workdir={run}", "--num=4", "--steps=10", f"--out={out}"])
    images = np.load(out)["arr_0"]
    assert images.shape == (4, 32, 32, 3)
    assert images.std() > 10.0


def test_an_image_folder_trains(pictures, tmp_path):
    size = ["--config.data.image_size=16", "--config.train.steps=2", *ONE_LEVEL]
    train.main(flags("image_folder.py", tmp_path / "run", pictures, *size))
    assert np.all(np.isfinite(losses(tmp_path / "run")))
    record = json.loads((tmp_path / "run" / "config.json").read_text())
    assert record["data"]["shape"] == [16, 16, 3]


def test_grids_appear_while_training_and_can_be_of_classes(pictures, tmp_path):
    rng = np.random.default_rng(1)
    np.savez(
        tmp_path / "data.npz",
        images=rng.integers(0, 256, (8, 8, 8, 1), dtype=np.uint8),
        labels=np.arange(8) % 2,
    )
    more = [
        *ONE_LEVEL,
        "--config.data.name=arrays",
        "--config.data.channels=1",
        "--config.model.classes=2",
        "--config.train.steps=2",
        "--config.train.sample_every=1",
        "--config.sample.num=4",
        "--config.sample.steps=5",
    ]
    train.main(flags("cifar10.py", tmp_path / "run", tmp_path / "data.npz", *more))
    grids = sorted(path.name for path in (tmp_path / "run" / "samples").iterdir())
    assert grids == ["step_0000001.png", "step_0000002.png"]


@pytest.fixture(scope="module")
def colours(tmp_path_factory):
    """A file of 16 small colour images."""
    path = tmp_path_factory.mktemp("colours") / "data.npz"
    rng = np.random.default_rng(2)
    np.savez(path, images=rng.integers(0, 256, (16, 8, 8, 3), dtype=np.uint8))
    return path


SMALLEST = [*ONE_LEVEL, "--config.data.name=arrays", "--config.train.steps=2"]


@pytest.fixture(scope="module")
def run_of(colours, tmp_path_factory):
    """The finished run of a variant, trained when it is first asked for."""

    @cache
    def run(variant):
        folder = tmp_path_factory.mktemp("runs") / variant
        train.main(flags(f"cifar10.py:{variant}", folder, colours, *SMALLEST))
        return folder

    return run


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_of_cifar10_trains(variant, run_of):
    run = run_of(variant)
    assert np.all(np.isfinite(losses(run)))
    record = json.loads((run / "config.json").read_text())["config"]
    assert record["name"] == f"cifar10_{variant}"
    assert record["loss"] == VARIANTS[variant].get("loss", "weighted")


@pytest.mark.parametrize("variant", ["hybrid_cosine_4000", "mean_bound_learned_variance"])
def test_learned_variances_are_sampled_and_evaluated(variant, run_of, tmp_path):
    run, out = run_of(variant), tmp_path / "report.json"
    sample.main([f"--workdir={run}", "--num=2", "--steps=5", f"--out={tmp_path / 'x.npz'}"])
    assert np.load(tmp_path / "x.npz")["arr_0"].shape == (2, 8, 8, 3)
    evaluate.main([f"--workdir={run}", "--split=train", "--num=4", "--every=25", f"--out={out}"])
    assert np.isfinite(json.loads(out.read_text())["bits_per_dim"]["total"]["mean"])
