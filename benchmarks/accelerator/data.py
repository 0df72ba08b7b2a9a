"""CIFAR-10 for a machine without any: one packed file, or what there is of TFDS's shards.

A packed file is a zip of lossless WebP pictures, 128 images below each other, and a JSON header:
4.23 bits a value, where PNGs of single images take 5.88 and LZMA over a median predictor 4.35.
"""

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from diffusion_jax.data.dataset import Dataset, Look
from diffusion_jax.data.decoding import encoded, read_pixels
from diffusion_jax.data.sources import open_source
from diffusion_jax.data.tfds_source import Records
from diffusion_jax.errors import UserError
from diffusion_jax.files import replacing

DIGITS, CIFAR10 = "digits", "cifar10"
SPLITS = ("train", "test")
TESTED = 1000  # test images in a packed file
STRIP = 128  # images in a picture: WebP codes a longer one in coarser blocks
HEADER = "header.json"
DESCRIPTION = f"{CIFAR10}/*/dataset_info.json"  # in a folder of TFDS


class Data(NamedTuple):
    """What there is of a data set: two splits, and how many images the first one should have."""

    name: str
    train: Dataset
    test: Dataset
    whole: int

    @property
    def line(self) -> str:
        """Say how much of the data set this is."""
        return (
            f"{self.name}: {len(self.train.images):,} of {self.whole:,} training images, "
            f"{len(self.test.images):,} test images"
        )


def check_path(path: str) -> None:
    """Refuse a path that is neither 'digits', nor a file, nor a folder of TFDS with CIFAR-10.

    Raises:
        UserError: it says what may be named.
    """
    place = Path(path).expanduser()
    found = place.is_file() or any(place.glob(DESCRIPTION))
    if path != DIGITS and not found:
        raise UserError(
            f"--data {path}: neither a packed file nor a folder of TFDS that holds {CIFAR10}; name "
            "one, or train on --data=digits"
        )


def open_data(path: str) -> Data:
    """Read 'digits', a packed file, or CIFAR-10 in a folder of TFDS, whole or some shards of it.

    Raises:
        UserError: it is not there, or damaged.
    """
    check_path(path)
    place = Path(path).expanduser()
    if path == DIGITS:
        train, test = (open_source(DIGITS, split).load() for split in SPLITS)
        return Data(DIGITS, train, test, len(train.images))
    return unpack(place) if place.is_file() else read_shards(place)


def as_arrays(data: Data, folder: Path) -> Path:
    """Write the splits as `data.name=arrays` reads them.

    Raises:
        UserError: arrays would be read with other levels or classes; nothing is written.
    """
    levels, classes = data.train.levels, data.train.classes
    found = int(data.train.labels.max()) + 1
    if (levels, classes) != (256, found):
        raise UserError(
            f"{data.name} has {levels} levels and {classes} classes, but its arrays would be read "
            f"with 256 and {found}; take more images, or name the data set itself"
        )
    folder.mkdir(parents=True, exist_ok=True)
    for split in SPLITS:
        dataset = getattr(data, split)
        with replacing(folder / f"{split}.npz", "wb") as file:
            np.savez(file, images=dataset.images, labels=dataset.labels)
    return folder


# --- a packed file ---


def pack(source: Path, out: Path, num: int, most_mib: float | None) -> str:
    """Write the first training images of a TFDS folder, and 1,000 test images, into one file.

    Args:
        num: training images.
        most_mib: the largest size allowed.

    Raises:
        UserError: there are fewer images, or the file would be too large; nothing is written.
    """
    from diffusion_jax.command_line import check_file  # needs absl

    check_file(out)
    wanted = {"train": num, "test": TESTED}
    folder = source.expanduser()
    data = read_shards(folder, wanted) if folder.is_dir() else open_data(str(source))
    if num > (held := len(data.train.images)):
        raise UserError(f"--pack {num}: {source} holds {held} training images")
    chosen = data._replace(train=_first(data.train, num), test=_first(data.test, TESTED))
    content = packed(chosen)
    size = len(content) / 2**20  # MiB
    if most_mib is not None and size > most_mib:
        tested = len(chosen.test.images)
        fitting = max(int((num + tested) * most_mib / size) - tested, 0)
        raise UserError(
            f"--pack {num}: the file would have {size:.1f} MiB, more than --most {most_mib:g}; "
            f"about {fitting:,} training images fit"
        )
    with replacing(out, "wb") as file:
        file.write(content)
    return f"wrote {out}, {size:.1f} MiB: {chosen.line}"


def packed(data: Data) -> bytes:
    """Return the bytes of a packed file."""
    header: dict[str, Any] = {"name": data.name, "whole": data.whole}
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for split in SPLITS:
            dataset = getattr(data, split)
            header[split] = {
                "shape": dataset.images.shape,
                "levels": dataset.levels,
                "classes": dataset.classes,
                "labels": dataset.labels.tolist(),
            }
            for start in range(0, len(dataset.images), STRIP):
                strip = _encode(dataset.images[start : start + STRIP])
                archive.writestr(_member(split, start), strip)
        archive.writestr(HEADER, json.dumps(header), zipfile.ZIP_DEFLATED)
    return content.getvalue()


def unpack(file: Path) -> Data:
    """Read a packed file.

    Raises:
        UserError: it is damaged, or something else.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            header = json.loads(archive.read(HEADER))
            train, test = (_unpacked(archive, split, header[split]) for split in SPLITS)
            return Data(header["name"], train, test, header["whole"])
    # Zip, JSON and Pillow report damage by whatever they run into.
    except Exception as error:
        reason = str(error).partition("\n")[0]
        message = f"--data {file} is no packed file, or damaged ({reason}); pack it again"
        raise UserError(message) from error


def _member(split: str, start: int) -> str:
    return f"{split}/{start:05d}.webp"


def _encode(images: np.ndarray) -> bytes:
    """Return a WebP file of images `[n, h, w, c]`, one below the other."""
    _, _, width, channels = images.shape
    strip = images.reshape(-1, width, channels).repeat(3 // channels, axis=-1)
    file = io.BytesIO()
    Image.fromarray(strip).save(file, "WEBP", lossless=True, exact=True, method=5, quality=80)
    return file.getvalue()


def _unpacked(archive: zipfile.ZipFile, split: str, header: dict[str, Any]) -> Dataset:
    images = np.empty(header["shape"], np.uint8)
    for start in range(0, len(images), STRIP):
        part = images[start : start + STRIP]
        strip = read_pixels(io.BytesIO(archive.read(_member(split, start))), Look(3))
        part[:] = strip[..., : part.shape[-1]].reshape(part.shape)
    labels = np.asarray(header["labels"], np.int32)
    if len(labels) != len(images):
        raise ValueError(f"{len(labels)} labels of {len(images)} images")
    return Dataset(images, labels, header["levels"], header["classes"])


def _first(dataset: Dataset, num: int) -> Dataset:
    return Dataset(dataset.images[:num], dataset.labels[:num], dataset.levels, dataset.classes)


# --- shards of TFDS ---


def read_shards(folder: Path, most: Mapping[str, int] | None = None) -> Data:
    """Read those of CIFAR-10's shards that are there, in their order, or the first images of them.

    Args:
        most: how many images of each split; default: all.

    Raises:
        UserError: a split has no shard, or something is damaged.
    """
    check_path(str(folder))
    description = max(folder.glob(DESCRIPTION))
    try:
        info = json.loads(description.read_text())
        lengths = {each["name"]: list(map(int, each["shardLengths"])) for each in info["splits"]}
        whole = sum(lengths["train"])
    except (ValueError, KeyError, TypeError) as error:
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise UserError(f"--data: {description} is damaged ({reason}); copy it again") from error
    place, most = description.parent, most or {}
    train, test = (_read_split(place, s, lengths.get(s, []), most.get(s)) for s in SPLITS)
    return Data(CIFAR10, train, test, whole)


def _read_split(place: Path, split: str, lengths: Sequence[int], most: int | None) -> Dataset:
    of = f"of-{len(lengths):05d}"
    paths = [place / f"{CIFAR10}-{split}.array_record-{i:05d}-{of}" for i in range(len(lengths))]
    there = {str(path): n for path, n in zip(paths, lengths, strict=True) if path.is_file()}
    if not there:
        raise UserError(f"--data: no shard of the split '{split}' in {place}; copy one there")
    try:
        from array_record.python import array_record_data_source as reader  # pyright: ignore

        records = reader.ArrayRecordDataSource(list(there))
        if (count := len(records)) != sum(there.values()):
            raise ValueError(f"{count} images, not {sum(there.values())}")
        name, shape = f"'{CIFAR10}' in {place}", (32, 32, 3)
        read = Records(records, name, "image", "label", shape, Look(channels=shape[-1]))
        return encoded(name, shape, 10, min(count, most or count), read).load()
    except ModuleNotFoundError as error:
        message = f"--data: reading TFDS's files takes the package '{error.name}'; install it"
        raise UserError(f"{message}, or name a packed file") from error
    except (RuntimeError, ValueError) as error:
        reason = str(error).partition("\n")[0] or "too short"
        message = f"a shard of '{split}' in {place} is damaged ({reason}); copy it again"
        raise UserError(message) from error
