"""CIFAR-10 for a machine without any: one packed file, or what there is of TFDS's shards.

A packed file is a zip of WebP pictures without loss, each 8 x 8 images, and a header in JSON: 4.28
bits a value where PNGs of single images take 5.89 and LZMA over a median predictor 4.35.
"""

import io
import json
import math
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from diffusion_jax.data.dataset import Dataset
from diffusion_jax.data.sources import open_source
from diffusion_jax.data.tfds_source import Records
from diffusion_jax.errors import UserError
from diffusion_jax.files import replacing

DIGITS, CIFAR10 = "digits", "cifar10"
SPLITS = ("train", "test")
TESTED = 1000  # test images in a packed file
SIDE = 8  # images along a picture's side
HEADER = "header.json"
MIB = 2**20


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
    if (
        path != DIGITS
        and not place.is_file()
        and not list(place.glob(f"{CIFAR10}/*/dataset_info.json"))
    ):
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
    """Write the splits as `data.name=arrays` reads them."""
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

    Returns:
        A line that says what was written.

    Raises:
        UserError: there are fewer images, or the file would be too large; nothing is written.
    """
    data = open_data(str(source))
    if num > len(data.train.images):
        raise UserError(f"--pack {num}: {source} holds {len(data.train.images)} training images")
    chosen = data._replace(train=_first(data.train, num), test=_first(data.test, TESTED))
    content = packed(chosen)
    size = len(content) / MIB
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
            for i, image in enumerate(_pictures(dataset.images)):
                picture = io.BytesIO()
                image.save(picture, "WEBP", lossless=True, exact=True, method=4, quality=80)
                archive.writestr(f"{split}/{i:05d}.webp", picture.getvalue())
        archive.writestr(HEADER, json.dumps(header))
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
        raise UserError(
            f"--data {file} is no packed file, or damaged ({reason}); pack it again"
        ) from error


def _pictures(images: np.ndarray):
    """Lay images `[n, h, w, c]` out in squares, the last one filled up with black images."""
    count, height, width, channels = images.shape
    each = SIDE * SIDE
    black = np.zeros((-count % each, height, width, channels), np.uint8)
    rows = np.concatenate([images, black]).reshape(-1, SIDE, SIDE, height, width, channels)
    for picture in rows.transpose(0, 1, 3, 2, 4, 5).reshape(
        -1, SIDE * height, SIDE * width, channels
    ):
        yield Image.fromarray(picture.repeat(3 // channels, axis=-1))


def _unpacked(archive: zipfile.ZipFile, split: str, header: dict[str, Any]) -> Dataset:
    count, height, width, channels = header["shape"]
    images = np.empty((math.ceil(count / SIDE**2) * SIDE**2, height, width, channels), np.uint8)
    for i in range(math.ceil(count / SIDE**2)):
        with Image.open(io.BytesIO(archive.read(f"{split}/{i:05d}.webp"))) as image:
            pixels = np.asarray(image.convert("RGB"))[..., :channels]
        square = pixels.reshape(SIDE, height, SIDE, width, channels).swapaxes(1, 2)
        images[i * SIDE**2 : (i + 1) * SIDE**2] = square.reshape(-1, height, width, channels)
    labels = np.asarray(header["labels"], np.int32)
    if len(labels) != count:
        raise ValueError(f"{len(labels)} labels of {count} images")
    return Dataset(images[:count], labels, header["levels"], header["classes"])


def _first(dataset: Dataset, num: int) -> Dataset:
    return Dataset(dataset.images[:num], dataset.labels[:num], dataset.levels, dataset.classes)


# --- shards of TFDS ---


def read_shards(folder: Path) -> Data:
    """Read those of CIFAR-10's shards that are there, in their order.

    Raises:
        UserError: a split has none, or one is damaged.
    """
    place = max(folder.glob(f"{CIFAR10}/*/dataset_info.json")).parent
    info = json.loads((place / "dataset_info.json").read_text())
    lengths = {each["name"]: list(map(int, each["shardLengths"])) for each in info["splits"]}
    train, test = (_read_split(place, split, lengths[split]) for split in SPLITS)
    return Data(CIFAR10, train, test, sum(lengths["train"]))


def _read_split(place: Path, split: str, lengths: Sequence[int]) -> Dataset:
    names = [
        f"{CIFAR10}-{split}.array_record-{i:05d}-of-{len(lengths):05d}" for i in range(len(lengths))
    ]
    there = {
        place / name: n for name, n in zip(names, lengths, strict=True) if (place / name).is_file()
    }
    if not there:
        raise UserError(f"--data: no shard of the split '{split}' in {place}; copy one there")
    try:
        from array_record.python.array_record_data_source import (  # pyright: ignore
            ArrayRecordDataSource,
        )

        records = ArrayRecordDataSource(list(map(str, there)))
        count = len(records)
        if count != sum(there.values()):
            raise ValueError(f"{count} images, not {sum(there.values())}")
        read = Records(records, f"'{CIFAR10}' in {place}", "image", "label", (32, 32, 3), False)
        return Dataset(*read(range(count)), levels=256, classes=10)
    except ModuleNotFoundError as error:
        raise UserError(
            f"reading TFDS's files takes the package '{error.name}'; install it, or name a packed "
            "file with --data"
        ) from error
    except (RuntimeError, ValueError) as error:
        raise UserError(f"a shard of '{split}' in {place} is damaged ({error})") from error
