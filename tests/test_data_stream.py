"""Reading while training goes on: the same images in the same order, whoever reads them."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import psutil
import pytest
from data_published import archive_at, published, served
from PIL import Image
from tiny import ROOT, flags
from tiny import train as train_command

from diffusion_jax.commands import train
from diffusion_jax.data.batches import Order, batch_indices
from diffusion_jax.data.sources import open_source
from diffusion_jax.data.stream import BatchStream
from diffusion_jax.data.tfds_prepare import prepare_builder
from diffusion_jax.data.tfds_source import find_builder
from diffusion_jax.errors import UserError

SEED, BATCH = 3, 8


def image_folder(folder, count=20):
    """Random images in two classes."""
    rng = np.random.default_rng(0)
    for i in range(count):
        place = folder / "ab"[i % 2]
        place.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(place / f"{i:04}.png")
    return open_source("image_folder", "train", str(folder))


def records(folder):
    """The small CIFAR-10 of 20 images."""
    _, files = published("cifar10")
    with served(files) as url:
        prepare_builder(find_builder("cifar10", str(folder)), archive_at("cifar10", url, files))
    return open_source("cifar10", "train", str(folder))


def arrays(folder):
    """Images in memory."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (20, 4, 4, 1), dtype=np.uint8)
    np.savez(folder / "train.npz", images=images, labels=np.arange(20) % 3)
    return open_source("arrays", "train", str(folder))


def readers():
    """The worker processes."""
    return [each for each in psutil.Process().children() if "spawn_main" in str(each.cmdline())]


@pytest.fixture
def streams():
    """Makes streams and closes them."""
    opened = []

    def make(*args, **kwargs):
        opened.append(BatchStream(*args, **kwargs))
        return opened[-1]

    yield make
    for stream in opened:
        stream.close()


@pytest.mark.parametrize("kind", [image_folder, records, arrays], ids=lambda kind: kind.__name__)
def test_whoever_reads_the_batches_are_those_in_memory(kind, tmp_path, streams):
    """Threads or processes, from any step on, any share of the batch, over the ends of epochs."""
    source = kind(tmp_path)
    dataset = source.load()
    for workers, first, local in ((0, 0, slice(None)), (0, 5, slice(2, 4)), (2, 3, slice(4, 8))):
        stream = streams(source, Order(SEED, BATCH, source.size), local, first, workers)
        for step in range(first, first + 6):
            images, labels = next(stream)
            index = batch_indices(SEED, step, BATCH, source.size)[local]
            np.testing.assert_array_equal(images, dataset.images[index])
            np.testing.assert_array_equal(labels, dataset.labels[index])
            assert (images.dtype, labels.dtype) == (np.uint8, np.int32)


def test_nothing_is_left_running(tmp_path, streams):
    source = arrays(tmp_path)
    before = {thread.ident for thread in threading.enumerate()}
    for workers in (0, 1):
        stream = streams(source, Order(SEED, BATCH, source.size), workers=workers)
        next(stream)
        running = readers()
        assert len(running) == workers
        stream.close()
        assert not any(each.is_running() for each in running)
    deadline = time.monotonic() + 5
    while left := [
        thread.name
        for thread in threading.enumerate()
        if thread.ident not in before and thread.name.startswith("grain-prefetch")
    ]:
        assert time.monotonic() < deadline, left
        time.sleep(0.01)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_image_is_named(tmp_path, streams, workers):
    source = image_folder(tmp_path)
    broken = tmp_path / "a" / "0006.png"
    broken.write_text("no image")
    (place,) = np.flatnonzero(
        np.concatenate([batch_indices(SEED, s, 4, 20) for s in range(5)]) == 3
    )
    stream = streams(source, Order(SEED, 4, source.size), workers=workers)
    for _ in range(place // 4):
        next(stream)
    with pytest.raises(UserError) as caught:
        next(stream)
    kinds = "PNG, JPEG, WEBP, BMP, GIF, TIFF, PPM"
    assert str(caught.value) == f"{broken}: not a readable {kinds} image; remove it"


def test_a_killed_reader_is_named(tmp_path, streams):
    source = arrays(tmp_path)
    stream = streams(source, Order(SEED, BATCH, source.size), workers=1)
    next(stream)
    (reader,) = readers()
    reader.kill()
    with pytest.raises(UserError, match=r"^a process that reads images was killed \(.*code -9"):
        list(zip(range(9), stream, strict=False))


def test_labels_outside_the_classes_are_refused(tmp_path, streams):
    source = arrays(tmp_path)
    source.read.labels[:] = 7
    with pytest.raises(UserError, match=r"labels 7\.\.7 are outside the 3 classes"):
        next(streams(source, Order(SEED, BATCH, source.size)))


MEMORY = """
import sys, psutil
from diffusion_jax.data.sources import open_source
from diffusion_jax.data.batches import Order
from diffusion_jax.data.stream import BatchStream
source = open_source("image_folder", "train", sys.argv[1])
stream = BatchStream(source, Order(0, 16, source.size))
rss, most = psutil.Process().memory_info, 0
for step in range(2 * source.size // 16):
    next(stream)
    if step == 5:
        begun = rss().rss
    most = max(most, rss().rss)
stream.close()
print(most - begun)
"""


def test_memory_does_not_grow_with_the_data(tmp_path):
    """Two epochs of 157 MB of pixels (one file under many names) grow by far less."""
    Image.new("RGB", (256, 256), (9, 99, 200)).save(tmp_path / "0.png")
    for i in range(1, 800):
        os.link(tmp_path / "0.png", tmp_path / f"{i}.png")
    command = [sys.executable, "-c", MEMORY, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 40e6
    assert done.stderr == ""


def numbers(folder):
    """What each step gave, but not how fast."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").open()]
    return [(line["step"], line["loss"], line["grad_norm"]) for line in lines]


def test_a_run_may_switch_between_memory_threads_and_processes(tmp_path):
    """Bit for bit, over an epoch's end."""
    image_folder(tmp_path / "data", 24)
    own = {"data__name": "image_folder", "data__dir": tmp_path / "data", "data__channels": 3}
    own |= {"model__multipliers": 1, "model__attention_resolutions": 99}

    def go(folder, steps, **changes):
        train.main([*flags(train__steps=steps, **own, **changes), f"--workdir={tmp_path / folder}"])

    go("straight", 6)
    go("switched", 2, data__stream=True)
    go("switched", 4, data__stream=True, data__workers=2)
    go("switched", 6)
    assert numbers(tmp_path / "switched") == numbers(tmp_path / "straight")


def test_the_command_names_a_broken_image(tmp_path):
    image_folder(tmp_path / "data")
    broken = tmp_path / "data" / "b" / "0011.png"
    broken.write_text("no image")
    own = {"data__name": "image_folder", "data__dir": tmp_path / "data", "data__channels": 3}
    own |= {"model__multipliers": 1, "model__attention_resolutions": 99, "data__workers": 1}
    command = train_command(tmp_path / "run", data__stream=True, **own)
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines() == [
        f"error: {broken}: not a readable PNG, JPEG, WEBP, BMP, GIF, TIFF, PPM image; remove it; "
        "step 1 is saved; if you change the images, resume with --config.data.changed=allow"
    ]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_stopped_run_leaves_no_process(tmp_path, number):
    """Ctrl-C reaches the whole group, as a terminal sends it; a kill the main process only."""
    process = subprocess.Popen(
        train_command(tmp_path / "run", train__steps=5000, data__stream=True, data__workers=2),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout
    for line in process.stdout:
        if line.startswith("step 2/"):
            break
    working = psutil.Process(process.pid).children(recursive=True)
    assert len(working) >= 2
    if number == signal.SIGKILL:
        process.kill()
    else:
        os.killpg(process.pid, number)
    _, errors = process.communicate(timeout=120)
    _, left = psutil.wait_procs(working, timeout=10)
    assert not left
    if number == signal.SIGKILL:
        return
    assert process.returncode == 128 + number
    (line,) = errors.splitlines()
    assert line.startswith(f"stopped by {number.name} after step")
