"""Preparing TFDS data sets when something goes wrong: one line, and nothing left behind."""

import dataclasses
import errno
import socket
import time
from pathlib import Path

import pytest
from data_published import archive_at, cifar_file, mnist_files, own_builder, published, served

from diffusion_jax.data import download, tfds_prepare
from diffusion_jax.data.sources import load_dataset
from diffusion_jax.data.tfds_prepare import prepare_builder
from diffusion_jax.data.tfds_source import find_builder
from diffusion_jax.errors import UserError

REFUSED = f"[Errno {errno.ECONNREFUSED}] Connection refused"


def failure(name: str, directory: Path, archive) -> str:
    """The line a person sees when preparing fails, which must leave nothing behind."""
    before = set(directory.parent.rglob("*"))
    with pytest.raises(UserError) as caught:
        prepare_builder(find_builder(name, str(directory)), archive)
    assert set(directory.parent.rglob("*")) == before
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_refused_connection_is_said_at_once(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/"
    start = time.monotonic()
    line = failure("mnist", tmp_path / "data", archive_at("mnist", url, {}))
    assert time.monotonic() - start < 10
    assert line == (
        f"cannot download {url}train-images-idx3-ubyte.gz ({REFUSED}); check the network, or set "
        "--config.data.dir to a folder that holds the prepared data"
    )


def test_a_silent_server_is_not_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(download, "OPEN_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        line = failure("mnist", tmp_path / "data", archive_at("mnist", url, {}))
    assert "(no answer within 0.5 s)" in line


def test_tfds_itself_is_not_left_to_retry(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/file"
    start = time.monotonic()
    line = own_failure(tmp_path / "data", {}, [], url_infos={url: None})
    assert time.monotonic() - start < 10
    assert line.startswith(f"cannot download {url} ({REFUSED}); check the network")


def test_a_missing_file_on_the_server(tmp_path):
    with served({}) as url:
        line = failure("cifar10", tmp_path / "data", archive_at("cifar10", url, {}))
    assert line.startswith(f"cannot download {url}cifar-10-binary.tar.gz (Not Found); check ")


def test_a_download_that_is_not_the_published_one(tmp_path):
    _, files = published("cifar10")
    archive = archive_at("cifar10", "", files)
    (file,) = archive.files
    with served({file: files[file][:-1]}) as url:
        line = failure("cifar10", tmp_path / "data", dataclasses.replace(archive, url=url))
    size = len(files[file]) - 1
    assert line == f"{url}{file} is incomplete or altered ({size} bytes, wrong SHA-256); try again"


@pytest.mark.parametrize("name", ["cifar10", "mnist"])
@pytest.mark.parametrize("damage", ["cut", "garbage", "empty", "short"])
def test_a_damaged_archive_leaves_nothing_behind(tmp_path, name, damage):
    splits, files = published(name)
    if damage == "short":
        splits = {split: (images[:, 1:], labels) for split, (images, labels) in splits.items()}
        damaged = (
            mnist_files(splits)
            if name == "mnist"
            else {file: cifar_file(splits, coarse=False) for file in files}
        )
    else:
        spoil = {"cut": lambda x: x[: len(x) // 2], "garbage": lambda x: x[::-1]}
        damaged = {f: spoil.get(damage, lambda x: b"")(content) for f, content in files.items()}
    with served(damaged) as url:
        line = failure(name, tmp_path / "data", archive_at(name, url, damaged))
    assert line.startswith(f"{', '.join(files)} from {url}: damaged archive (")


@pytest.mark.parametrize("stop", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_stopping_while_writing_leaves_nothing_behind(tmp_path, monkeypatch, stop):
    def examples(*args):
        yield from list(real_examples(*args))[:3]
        raise stop

    real_examples = tfds_prepare.examples
    monkeypatch.setattr(tfds_prepare, "examples", examples)
    _, files = published("mnist")
    builder = find_builder("mnist", str(tmp_path / "data"))
    with (
        served(files) as url,
        pytest.raises((KeyboardInterrupt, UserError)) as caught,
    ):
        prepare_builder(builder, archive_at("mnist", url, files))
    assert not list(tmp_path.iterdir())
    if caught.type is UserError:
        assert str(caught.value).endswith("[Errno 28] No space left on device")


def test_two_processes_may_prepare_at_once(tmp_path, monkeypatch):
    splits, files = published("mnist")
    first, second = (find_builder("mnist", str(tmp_path)) for _ in range(2))

    def examples(name, *args):
        if name == "test":
            monkeypatch.setattr(tfds_prepare, "examples", real_examples)
            prepare_builder(second, archive)
        yield from real_examples(name, *args)

    real_examples = tfds_prepare.examples
    monkeypatch.setattr(tfds_prepare, "examples", examples)
    with served(files) as url:
        archive = archive_at("mnist", url, files)
        prepare_builder(first, archive)
    dataset = load_dataset("mnist", "train", str(tmp_path))
    assert sorted(dataset.labels) == sorted(splits["train"][1])
    assert [path.name for path in (tmp_path / "mnist").iterdir()] == ["3.0.1"]


def test_a_place_that_cannot_be_written_is_named_before_the_download(tmp_path):
    (tmp_path / "file").write_text("")
    line = failure(
        "mnist", tmp_path / "file" / "data", archive_at("mnist", "http://no.invalid/", {})
    )
    assert line == (
        f"TFDS data set 'mnist' cannot be prepared in {tmp_path}/file/data: [Errno 20] "
        f"Not a directory: '{tmp_path}/file/data'"
    )


def own_failure(directory, features, examples, **kwargs) -> str:
    """The line a person sees when TFDS's own preparing fails, which must leave nothing behind."""
    builder = own_builder(directory, features, examples, **kwargs)
    with pytest.raises(UserError) as caught:
        prepare_builder(builder)
    assert not directory.exists()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_data_sets_that_take_tensorflow_say_so(tmp_path):
    def examples():
        import tensorflow

        yield tensorflow

    line = own_failure(tmp_path / "data", {}, examples())
    assert line == (
        f"TFDS data set 'own_images' cannot be prepared in {tmp_path / 'data'}: that needs "
        "TensorFlow, which is not installed; prepare it elsewhere as array_record and set "
        "--config.data.dir to its folder"
    )


def test_a_data_set_without_images_is_not_downloaded(tmp_path):
    with pytest.raises(UserError) as caught:
        load_dataset("ag_news_subset", "train", str(tmp_path))
    assert str(caught.value) == (
        "TFDS data set 'ag_news_subset' has no single image among its features: "
        "description, label, title"
    )


def test_a_version_that_does_not_exist(tmp_path):
    with pytest.raises(
        UserError, match=r"^TFDS cannot open 'cifar10:1.0.0': .*cannot be loaded at version 1.0.0"
    ):
        load_dataset("cifar10:1.0.0", "train", str(tmp_path))
