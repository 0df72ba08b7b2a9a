"""Small data sets laid out as CIFAR and MNIST are published, and a web server that has them."""

import contextlib
import dataclasses
import gzip
import hashlib
import http.server
import io
import struct
import tarfile
import threading

import numpy as np

from diffusion_jax.data.archives import ARCHIVES

SIZES = {"train": 20, "test": 6}


def random_split(seed, size, shape, classes):
    """Images and labels to publish."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (size, *shape), dtype=np.uint8)
    return images, rng.integers(0, classes, size, dtype=np.uint8)


def mnist_files(splits) -> dict[str, bytes]:
    """The four files of MNIST's layout."""
    files = {}
    for prefix, split in (("train", "train"), ("t10k", "test")):
        images, labels = splits[split]
        header = struct.pack(">4I", 0x803, len(images), 28, 28)
        files[f"{prefix}-images-idx3-ubyte.gz"] = gzip.compress(header + images.tobytes())
        header = struct.pack(">2I", 0x801, len(images))
        files[f"{prefix}-labels-idx1-ubyte.gz"] = gzip.compress(header + labels.tobytes())
    return files


def cifar_file(splits, coarse: bool) -> bytes:
    """CIFAR's archive: one label before an image, or two in CIFAR-100."""
    folder = "cifar-100-binary/" if coarse else "cifar-10-batches-bin/"
    members = {
        "batches.meta.txt": b"\n".join(b"class%d" % i for i in range(10)) + b"\n\n",
        "coarse_label_names.txt": b"\n".join(b"group%d" % i for i in range(20)),
        "fine_label_names.txt": b"\n".join(b"class%d" % i for i in range(100)),
    }
    for split, (images, labels) in splits.items():
        planes = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
        columns = [labels[:, None] // 5, labels[:, None]] if coarse else [labels[:, None]]
        members[f"{split}.bin"] = np.hstack([*columns, planes]).tobytes()
    members["test_batch.bin"] = members["test.bin"]
    fifth = len(members["train.bin"]) // 5
    for i in range(5):
        members[f"data_batch_{i + 1}.bin"] = members["train.bin"][i * fifth :][:fifth]
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(folder + name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


@contextlib.contextmanager
def served(files: dict[str, bytes]):
    """The address of a web server on the loopback that has these files."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            content = files.get(self.path.lstrip("/"))
            self.send_response(200 if content is not None else 404)
            self.send_header("Content-Length", str(len(content or b"")))
            self.end_headers()
            self.wfile.write(content or b"")

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def published(name: str):
    """The splits of a small data set and the files that hold it."""
    mnist = "mnist" in name
    classes, shape = (100 if name == "cifar100" else 10), ((28, 28, 1) if mnist else (32, 32, 3))
    splits = {
        split: random_split(seed, size, shape, classes)
        for seed, (split, size) in enumerate(SIZES.items())
    }
    if mnist:
        return splits, mnist_files(splits)
    (file,) = ARCHIVES[name].files
    return splits, {file: cifar_file(splits, coarse=name == "cifar100")}


def archive_at(name: str, url: str, files: dict[str, bytes]):
    """The archive of `name`, but served at `url` with these files."""
    sums = {file: hashlib.sha256(files.get(file, b"")).hexdigest() for file in ARCHIVES[name].files}
    return dataclasses.replace(ARCHIVES[name], url=url, files=sums)


def own_builder(directory, features: dict, examples, url_infos=None):
    """A builder of a data set that the test itself makes up, with one split 'train'."""
    import tensorflow_datasets as tfds

    class OwnImages(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features)
            )

        def _split_generators(self, _):
            return {"train": enumerate(examples)}

        def _generate_examples(self):
            pass

    OwnImages.url_infos = url_infos
    return OwnImages(data_dir=str(directory), file_format="array_record")
