"""What others may have written, pictures, archives, runs and folders, can neither run nor harm."""

import io
import json
import os
import struct
import subprocess
import sys
import tarfile
import tracemalloc
import zlib

import numpy as np
import pytest
from data_published import archive_at, published, served
from PIL import Image
from tiny import DIGITS, ROOT, flags

from diffusion_jax.commands import train
from diffusion_jax.data.batches import Order
from diffusion_jax.data.pictures import read_image, read_mask
from diffusion_jax.data.sources import load_dataset, open_source
from diffusion_jax.data.stream import BatchStream
from diffusion_jax.data.tfds_prepare import prepare_builder
from diffusion_jax.data.tfds_source import find_builder
from diffusion_jax.devices.compiler import private_folder
from diffusion_jax.errors import UserError

WATCHED = """
import json, os, runpy, sys

script, report, configs, *arguments = sys.argv[1:]
seen = []

def watch(event, details):
    if event == "pickle.find_class":
        seen.append([event, *map(str, details)])
    if event == "import" and str(details[0]).split(".")[0] == "configs":
        seen.append([event, details[0]])
    if event in ("open", "compile", "exec"):
        name = details[1] if event == "compile" else details[0]
        name = getattr(name, "co_filename", name)
        if isinstance(name, (str, bytes)) and os.fsdecode(name).startswith(configs):
            seen.append([event, os.fsdecode(name)])

sys.addaudithook(watch)
sys.argv = [script, *arguments]
sys.path.insert(0, os.path.dirname(script))
try:
    runpy.run_path(script, run_name="__main__")
finally:
    with open(report, "w") as file:
        json.dump(seen, file)
"""


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A finished tiny run."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    train.main([*flags(train__steps=1), f"--workdir={folder}"])
    return folder


def events(script, tmp_path, *arguments):
    """What Python's own audit saw a command do with config files and pickles."""
    (tmp_path / "watched.py").write_text(WATCHED)
    report = tmp_path / "events.json"
    command = [sys.executable, tmp_path / "watched.py", ROOT / script, report, DIGITS.parent]
    done = subprocess.run([*command, *arguments], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(report.read_text())


def test_reading_a_run_executes_nothing(workdir, tmp_path):
    """Sampling and evaluating import no config and unpickle nothing; training does import one."""
    run = f"--workdir={workdir}"
    assert events("sample.py", tmp_path, run, "--num=1", "--steps=2") == []
    assert events("evaluate.py", tmp_path, run, "--num=4", "--every=10") == []
    kinds = {kind for kind, *_ in events("train.py", tmp_path, run, *flags(train__steps=1))}
    assert {"open", "exec"} <= kinds, "the watcher is blind"


def bomb(file, side):
    """A small PNG file that claims side x side pixels."""

    def chunk(kind, content):
        check = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + check

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    data = chunk(b"IDAT", zlib.compress(bytes(1_000_000)))
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + header + data + chunk(b"IEND", b""))
    return file


REFUSED = "more than 89 million pixels"


@pytest.mark.parametrize("side", [10_000, 50_000])
def test_huge_pictures_are_refused_and_not_decoded(tmp_path, side):
    file = bomb(tmp_path / "a.png", side)
    tracemalloc.start()
    for read in (read_image, read_mask):
        with pytest.raises(UserError) as caught:
            read(file, (8, 8, 1))
        assert str(caught.value) == f"cannot read the picture {file}: {REFUSED}"
    with pytest.raises(UserError) as caught:
        load_dataset("image_folder", "train", str(tmp_path))
    assert str(caught.value) == f"{file}: {REFUSED}; shrink it"
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20e6


@pytest.mark.parametrize("workers", [0, 1])
def test_huge_pictures_are_refused_while_streaming(tmp_path, workers):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    source = open_source("image_folder", "train", str(tmp_path))
    file = bomb(tmp_path / "a.png", 10_000)
    stream = BatchStream(source, Order(0, 1, source.size), workers=workers)
    with pytest.raises(UserError) as caught:
        next(stream)
    stream.close()
    assert str(caught.value) == f"{file}: {REFUSED}; shrink it"


def links_and_ways_out(kind):
    """CIFAR's archive whose members are links, or lie outside of the folder they belong in."""
    outside = {"up": "../../", "root": "/", "sneaky": "cifar-10-batches-bin/../../"}
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        names = [f"data_batch_{i}.bin" for i in range(1, 6)]
        for name in (*names, "test_batch.bin", "batches.meta.txt"):
            entry = tarfile.TarInfo(outside.get(kind, "cifar-10-batches-bin/") + name)
            if kind in ("symlink", "hardlink"):
                entry.type = tarfile.SYMTYPE if kind == "symlink" else tarfile.LNKTYPE
                entry.linkname = "/etc/passwd"
            else:
                entry.size = 3073
            archive.addfile(entry, io.BytesIO(bytes(entry.size)))
    return packed.getvalue()


@pytest.mark.parametrize("kind", ["up", "root", "sneaky", "symlink", "hardlink"])
def test_archives_write_nothing_outside(tmp_path, kind):
    _, files = published("cifar10")
    (name,) = files
    files = {name: links_and_ways_out(kind)}
    data = tmp_path / "a" / "b" / "data"
    with served(files) as url:
        builder = find_builder("cifar10", str(data))
        with pytest.raises(UserError, match=r"damaged archive \(no batches.meta.txt") as caught:
            prepare_builder(builder, archive_at("cifar10", url, files))
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_the_compilation_cache_is_private(tmp_path):
    folder = tmp_path / "home" / "cache"
    assert private_folder(folder) == folder
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o755)
    assert private_folder(folder) == folder
    assert folder.stat().st_mode & 0o777 == 0o700
    (tmp_path / "link").symlink_to(folder)
    assert private_folder(tmp_path / "link") == folder


def test_a_cache_that_others_could_replace_is_not_used(tmp_path):
    everybodys = tmp_path / "everybodys"
    (everybodys / "cache").mkdir(parents=True)
    everybodys.chmod(0o777)
    (tmp_path / "link").symlink_to(everybodys / "cache")
    assert private_folder(everybodys / "cache") is None
    assert private_folder(tmp_path / "link") is None
    everybodys.chmod(0o1777)
    assert private_folder(everybodys / "cache") == everybodys / "cache"
    (tmp_path / "file").write_text("")
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    assert private_folder(tmp_path / "file" / "cache") is None
    assert private_folder(tmp_path / "circle" / "cache") is None


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder away")
def test_a_cache_of_somebody_else_is_not_used(tmp_path):
    theirs = tmp_path / "theirs"
    theirs.mkdir(mode=0o700)
    os.chown(theirs, 12345, -1)
    assert private_folder(theirs) is None
    assert private_folder(theirs / "cache") is None


def test_pickles_in_arrays_are_refused(tmp_path):
    """An object array whose unpickling would write a file."""

    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "pwned"),)

    np.savez(tmp_path / "train.npz", images=np.array([Evil()], object), allow_pickle=True)
    with pytest.raises(UserError, match="Object arrays cannot be loaded"):
        load_dataset("arrays", "train", str(tmp_path))
    assert not (tmp_path / "pwned").exists()
