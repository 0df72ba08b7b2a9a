"""Whatever a person or a disk hands in, it is read, or refused in one line: never a traceback.

HYPOTHESIS_PROFILE=faults runs 2,000 cases of each kind instead of some dozens.
"""

import contextlib
import copy
import io
import json
import os
import tempfile
import warnings
import zipfile
from functools import lru_cache
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from tiny import DIGITS
from tiny import settings as tiny_settings

from diffusion_jax import build, configuration
from diffusion_jax.configuration.check import check
from diffusion_jax.core.schedules import SCHEDULES
from diffusion_jax.core.timesteps import TIMESTEPS
from diffusion_jax.data.dataset import Dataset, DataSpec, loaded
from diffusion_jax.data.sources import open_source
from diffusion_jax.errors import UserError
from diffusion_jax.run import folder as run_folder
from diffusion_jax.run import record as run_record
from diffusion_jax.samplers.sample import SAMPLERS

COMMON = {"deadline": None, "suppress_health_check": list(HealthCheck), "database": None}
settings.register_profile("fast", max_examples=150, derandomize=True, **COMMON)
settings.register_profile("faults", max_examples=2000, **COMMON)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fast"))

DATA = DataSpec((8, 8, 1), 17, 10)
SOURCE = loaded(Dataset(np.zeros((9, 8, 8, 1), np.uint8), np.arange(9, dtype=np.int32), 17, 10))


@contextlib.contextmanager
def one_line():
    """Success, or a UserError whose text can be printed on one line."""
    text = "-"
    try:
        yield
    except UserError as error:
        text = str(error)
    assert text.isprintable()
    assert text


def built(loaded, data):
    """What the commands make of a configuration, up to compiling."""
    check(loaded)
    diffusion = build.diffusion(loaded, data)
    build.training(loaded, diffusion)
    build.about(loaded, diffusion)
    build.method(loaded, diffusion)


KEYS = configuration.flatten(configuration.load(str(DIGITS), []).to_dict())
WORDS = [*SCHEDULES, *SAMPLERS, *TIMESTEPS, "bound", "hybrid", "learned_range", "cosine", "karras"]
WORDS += ["v", "mean", "score", "x0", "snr", "pmap", "bfloat16", "log_snr", "quadratic", "clipped"]
INTEGERS = ["0", "1", "2", "3", "4", "8", "10", "16", "20", "250", "999", "-1", str(2**31 - 1)]
INTEGERS += [str(2**31), str(2**63), str(10**30), "9" * 5000, "0x10", "1_0", "٣"]
FLOATS = ["0", "-0.0", "0.5", "1", "2", "-1", "20", "-20", "700", "1e-8", "1e-300", "1e300"]
FLOATS += ["1e999", "nan", "-inf"]
LISTS = ["()", "[]", "1,2", "1,2,", "(1,(2,3))", "[0.1,0.2]", "1," * 99, "0.5,0.5", "-1,0", "{1:2}"]
LISTS += ["__import__('os')", "(" * 500, "True,False", "1e999,2", "'a','b'", "None", "\x00"]
BY_TYPE = {bool: ["true", "False"], int: INTEGERS, float: FLOATS, tuple: LISTS, str: WORDS}
ANY = st.sampled_from([text for some in BY_TYPE.values() for text in some]) | st.text(max_size=8)
OVERRIDES = st.sampled_from(list(KEYS)).flatmap(
    lambda key: st.tuples(st.just(key), st.sampled_from(BY_TYPE.get(type(KEYS[key]), FLOATS)))
)


@given(
    st.lists(
        OVERRIDES | OVERRIDES | st.tuples(st.sampled_from(list(KEYS)) | st.text(), ANY), max_size=3
    )
)
def test_overrides(overrides):
    with one_line():
        built(configuration.load(str(DIGITS), overrides), DATA)


ODD = [None, True, -1, 0, 3, 10**30, 0.5, 1e300, float("nan"), float("inf"), "", "x", "\ud800"]
ODD += [[], [1], [[1]], [1, "a"], [float("nan")], {}, {"a": 1}, {"a.b": 1}, {"": {}}, [{}], [None]]
JSON = st.sampled_from(ODD) | st.text(max_size=5) | st.integers() | st.floats()


@lru_cache
def record():
    """What a run's config.json holds."""
    with tempfile.TemporaryDirectory() as folder:
        run_folder.begin(Path(folder), tiny_settings(), SOURCE, 0)
        return json.loads((Path(folder) / "config.json").read_text())


def places(tree, path=()):
    """The paths to everything in a tree of dicts and lists."""
    inner = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, value in inner:
        yield (*path, key)
        if isinstance(value, dict | list):
            yield from places(value, (*path, key))


@st.composite
def records(draw):
    """A run's record with some of it gone, of another kind, or new."""
    tree = copy.deepcopy(record())
    for _ in range(draw(st.integers(0, 3))):
        *way, last = draw(st.sampled_from(list(places(tree)) or [("config",)]))
        group = tree
        for key in way:
            group = group[key]
        change = draw(st.sampled_from(["drop", "replace", "replace", "add"]))
        if change == "drop":
            group.pop(last)
        elif change == "replace":
            group[last] = draw(JSON)
        elif isinstance(group, dict):
            group[draw(st.text(max_size=6) | st.sampled_from(["lock", "items", "_x"]))] = draw(JSON)
    return json.dumps(tree).encode()


@st.composite
def damaged(draw, whole: bytes):
    """Bytes flipped, cut off, taken out or put in."""
    content = bytearray(whole)
    for _ in range(draw(st.integers(0, 4))):
        place = draw(st.integers(0, max(len(content) - 1, 0)))
        kind = draw(st.sampled_from(["flip", "flip", "cut", "remove", "insert"]))
        if kind == "flip" and content:
            content[place] = draw(st.integers(0, 255))
        elif kind == "cut":
            del content[place:]
        elif kind == "remove":
            del content[place : place + draw(st.integers(1, 40))]
        else:
            content[place:place] = draw(st.binary(max_size=12))
    return bytes(content)


RECORDS = records() | records().flatmap(damaged) | st.sampled_from([b"[" * 9999, b"\xff\xfe"])


@given(RECORDS)
def test_records_of_runs(content):
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_bytes(content)
        with one_line():
            run = run_record.read(Path(folder))
            configuration.override(run.config, "sample.steps", "3")
            built(run.config, run.data)
        with one_line():
            run_folder.check_same(Path(folder), tiny_settings(), SOURCE)
        with one_line():
            assert run_record.paced_steps(Path(folder)) > 0
        with one_line():
            run_folder.begin(Path(folder), tiny_settings(), SOURCE, 3)


@lru_cache
def picture(form: str, mode: str, size: tuple[int, int]) -> bytes:
    """An image file."""
    file = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).convert("L").convert(mode).save(file, form)
    return file.getvalue()


FORMS = [("PNG", mode) for mode in ("L", "RGB", "RGBA", "P", "1", "LA", "I;16")]
FORMS += [("JPEG", "RGB"), ("JPEG", "L"), ("JPEG", "CMYK"), ("WEBP", "RGBA"), ("BMP", "RGB")]
FORMS += [("GIF", "P"), ("TIFF", "RGB"), ("PPM", "L")]
SIZES = [(6, 6), (6, 6), (6, 6), (1, 1), (9, 4), (300, 1)]
PICTURES = st.builds(
    lambda form, size: picture(*form, size), st.sampled_from(FORMS), st.sampled_from(SIZES)
)
NAMES = [b"a.png", b"b.jpg", b"c.JPEG", b"d.webp", b"\xff\xfe.png", "é🎨.bmp".encode(), b".h.png"]
NAMES += [b"new\nline.png", b"x" * 250 + b".png", b" .png", b"-.png", b"notes.txt"]
FOLDERS = [b"", b"train", b"test", b"train/a", b"train/b", b"a", b"\xff", b"deep/er/x.png"]
ENTRIES = st.tuples(
    st.sampled_from(FOLDERS),
    st.sampled_from(NAMES),
    PICTURES
    | PICTURES
    | PICTURES.flatmap(damaged)
    | st.just(b"")
    | st.sampled_from(["folder", "self", "up", "nowhere", "zero", "fifo", "closed"]),
)


def place(root: bytes, folder: bytes, name: bytes, content) -> None:
    """Puts a file or something odd there, if there is room for it."""
    where = os.path.join(root, folder)
    path = os.path.join(where, name)
    with contextlib.suppress(FileExistsError, NotADirectoryError, IsADirectoryError):
        os.makedirs(where, exist_ok=True)
        if isinstance(content, bytes):
            with open(path, "xb") as file:
                file.write(content)
        elif content in ("folder", "closed"):
            os.mkdir(path, 0o755 if content == "folder" else 0)
        elif content == "fifo":
            os.mkfifo(path)
        else:
            goals = {"self": path, "up": where, "nowhere": b"/nowhere", "zero": b"/dev/zero"}
            os.symlink(goals[content], path)


@given(
    st.lists(ENTRIES, min_size=1, max_size=5),
    st.sampled_from(["train", "train", "test", "", "\x00"]),
    st.sampled_from([0, 0, 1, 4, 64]),
    st.sampled_from([0, 0, 1, 3, 4]),
)
def test_image_folders(entries, split, size, channels):
    with tempfile.TemporaryDirectory() as root:
        for entry in entries:
            place(os.fsencode(root), *entry)
        with one_line():
            source = open_source("image_folder", split, root, size, channels)
            dataset = source.load()
            images, labels = source.read(np.arange(source.size)[::-1])
            np.testing.assert_array_equal(images, dataset.images[::-1])
            np.testing.assert_array_equal(labels, dataset.labels[::-1])


def saved(save, arrays: dict) -> bytes:
    """An .npz or .npy file."""
    file = io.BytesIO()
    if save is np.save:
        np.save(file, next(iter(arrays.values()), np.zeros(0)))
    else:
        save(file, **arrays)
    return file.getvalue()


@lru_cache
def bomb() -> bytes:
    """An archive that says of 1 kB that they are 4 TB."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|u1", "fortran_order": False, "shape": (10**8, 200, 200, 1)}
    )
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("images.npy", header.getvalue() + bytes(10**6))
    return file.getvalue()


RNG = np.random.default_rng(0)
ARRAYS = [
    RNG.integers(0, 256, (6, 4, 5, 3), dtype=np.uint8),
    RNG.integers(0, 256, (6, 4, 5), dtype=np.uint8),
    RNG.integers(0, 256, (6, 4, 5, 0), dtype=np.uint8),
    np.arange(6),
    np.arange(6, dtype=np.uint64) + 2**63,
    np.full((6, 4, 5, 3), np.nan, np.float16),
    np.zeros((6, 4, 5, 3), np.complex64),
    np.array([{}] * 6, object),
    np.array(["x"] * 6),
    np.zeros(6, [("a", "u1"), ("b", "f4")]),
    np.zeros((), np.uint8),
    np.zeros((0, 4, 4, 1), np.uint8),
    np.array(["2020-01-01"], "M8[D]"),
]
FILES = st.builds(
    saved,
    st.sampled_from([np.savez, np.savez, np.savez_compressed, np.save]),
    st.dictionaries(
        st.sampled_from(["images", "labels", "arr_0", "arr_1", "é/x"]),
        st.sampled_from(ARRAYS[:2] * 5 + ARRAYS),
        max_size=3,
    ),
)


@given(
    FILES | FILES.flatmap(damaged) | FILES.flatmap(damaged) | st.just(bomb()),
    st.sampled_from(["train.npz", "train.npy", "test.npz"]),
    st.sampled_from(["train", "test"]),
    st.sampled_from([0, 0, 0, 4]),
)
def test_arrays(content, name, split, size):
    with tempfile.TemporaryDirectory() as root, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NumPy's, of damaged headers
        (Path(root) / name).write_bytes(content)
        for directory in (root, str(Path(root) / name)):
            with one_line():
                source = open_source("arrays", split, directory, size, 0)
                dataset = source.load()
                images, _ = source.read(np.arange(source.size)[::-1])
                np.testing.assert_array_equal(images, dataset.images[::-1])


SOME_NAMES = st.text(max_size=6) | st.sampled_from(["../x", "a/b:1", "mnist:9.9.9", "é", "x" * 999])


@given(SOME_NAMES, st.sampled_from(["", "train"]), st.text(max_size=6))
@settings(max_examples=10 if settings.default.max_examples < 100 else 200)
def test_names_of_data_sets(name, split, directory):
    with tempfile.TemporaryDirectory() as root, one_line():
        open_source(name, split, os.path.join(root, directory.lstrip("/.")))
