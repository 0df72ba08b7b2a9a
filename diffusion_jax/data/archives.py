"""The published archives of CIFAR and MNIST: where they are and what is in them."""

import gzip
import io
import struct
import tarfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from diffusion_jax.data.download import download
from diffusion_jax.errors import UserError

CIFAR_URL = "https://www.cs.toronto.edu/~kriz/"
MNIST_URL = "https://storage.googleapis.com/cvdf-datasets/mnist/"
FASHION_MNIST_URL = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"


@dataclass(frozen=True)
class Split:
    """One split: images uint8 [n, h, w, c], and integers [n] for each label feature."""

    images: np.ndarray
    labels: dict[str, np.ndarray]


@dataclass(frozen=True)
class Content:
    """What the files of an archive hold: the splits, and the class names of each label feature."""

    splits: dict[str, Split]
    class_names: dict[str, list[str]]


@dataclass(frozen=True)
class Archive:
    """A published data set: files {name: SHA-256} under `url`, and how to parse their bytes."""

    url: str
    files: dict[str, str]
    parse: Callable[[dict[str, bytes]], Content]

    def fetch(self) -> Content:
        """Download and parse all files in memory; UserError if that fails."""
        files = {name: download(self.url + name, sha256) for name, sha256 in self.files.items()}
        try:
            return self.parse(files)
        except (tarfile.TarError, zlib.error, struct.error, OSError, EOFError, ValueError) as error:
            names = ", ".join(self.files)
            raise UserError(f"{names} from {self.url}: damaged archive ({error})") from error


def parse_cifar(
    files: dict[str, bytes],
    folder: str,
    members: dict[str, list[str]],
    class_names: dict[str, str],
) -> Content:
    """Parse CIFAR's tar.gz: records of one byte per label and 3072 bytes of planar 32x32 RGB.

    members: the files of each split; class_names: the file of each label, in a record's order.
    """
    (packed,) = files.values()
    wanted = {*class_names.values()}.union(*members.values())
    unpacked = read_members(packed, wanted, folder)
    width = len(class_names)

    def split(names):
        content = b"".join(unpacked[name] for name in names)
        records = np.frombuffer(content, np.uint8).reshape(-1, width + 3072)
        images = records[:, width:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        return Split(images, dict(zip(class_names, records.T, strict=False)))

    return Content(
        {name: split(parts) for name, parts in members.items()},
        {label: unpacked[name].decode().split() for label, name in class_names.items()},
    )


def read_members(packed: bytes, wanted: set[str], folder: str) -> dict[str, bytes]:
    """Read the wanted members of a tar.gz in one pass and in memory only."""
    found = {}
    with tarfile.open(fileobj=io.BytesIO(packed), mode="r|gz") as archive:
        for member in archive:
            name = member.name.removeprefix(folder)
            if name in wanted and member.isfile() and (file := archive.extractfile(member)):
                found[name] = file.read()
    if missing := sorted(wanted - found.keys()):
        raise ValueError(f"no {', '.join(missing)} in it")
    return found


def parse_mnist(files: dict[str, bytes]) -> Content:
    """Parse MNIST's four gzipped IDX files: the images and the labels of each split."""
    arrays = iter([read_idx(gzip.decompress(packed)) for packed in files.values()])
    splits = {
        name: Split(next(arrays)[..., None], {"label": next(arrays)}) for name in ("train", "test")
    }
    return Content(splits, {})


def read_idx(content: bytes) -> np.ndarray:
    """Read a uint8 array in IDX format: two zeros, type 8, the rank, big-endian sizes, the data."""
    magic = struct.unpack(">I", content[:4])[0]
    if magic >> 8 != 8:
        raise ValueError(f"not an IDX file of uint8 (it starts with {magic:#x})")
    rank = magic & 255
    shape = struct.unpack(f">{rank}I", content[4 : 4 + 4 * rank])
    return np.frombuffer(content, np.uint8, offset=4 + 4 * rank).reshape(shape)


def mnist_like(url: str, train_images: str, train_labels: str, images: str, labels: str) -> Archive:
    """Return an archive laid out like MNIST's, with the checksums of its four files."""
    files = {
        "train-images-idx3-ubyte.gz": train_images,
        "train-labels-idx1-ubyte.gz": train_labels,
        "t10k-images-idx3-ubyte.gz": images,
        "t10k-labels-idx1-ubyte.gz": labels,
    }
    return Archive(url, files, parse_mnist)


ARCHIVES = {
    "cifar10": Archive(
        CIFAR_URL,
        {
            "cifar-10-binary.tar.gz": (
                "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
            )
        },
        partial(
            parse_cifar,
            folder="cifar-10-batches-bin/",
            members={
                "train": [f"data_batch_{i}.bin" for i in range(1, 6)],
                "test": ["test_batch.bin"],
            },
            class_names={"label": "batches.meta.txt"},
        ),
    ),
    "cifar100": Archive(
        CIFAR_URL,
        {
            "cifar-100-binary.tar.gz": (
                "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec"
            )
        },
        partial(
            parse_cifar,
            folder="cifar-100-binary/",
            members={"train": ["train.bin"], "test": ["test.bin"]},
            class_names={
                "coarse_label": "coarse_label_names.txt",
                "label": "fine_label_names.txt",
            },
        ),
    ),
    "mnist": mnist_like(
        MNIST_URL,
        "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
    ),
    "fashion_mnist": mnist_like(
        FASHION_MNIST_URL,
        "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
        "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
        "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
        "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
    ),
}
