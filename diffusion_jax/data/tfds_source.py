"""Any image data set of TensorFlow Datasets by name, without TensorFlow."""

import difflib
import io
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from diffusion_jax.data.dataset import Look, Source, choose_split
from diffusion_jax.data.decoding import PIL_MODES, decode_image, encoded
from diffusion_jax.data.tfds_prepare import prepare_builder, quiet_tfds
from diffusion_jax.errors import UserError
from diffusion_jax.paths import as_path


def find_builder(name: str, directory: str):
    """Return the TFDS builder of `name` with data under `directory` ('' for TFDS's default folder).

    None if TFDS has no such data set; UserError if it has one but cannot open it.
    """
    import tensorflow_datasets as tfds

    if not name.replace("/", "_").partition(":")[0].isidentifier():
        return None
    place = str(as_path(directory)) if directory else None
    try:
        with quiet_tfds():
            return tfds.builder(name, data_dir=place, file_format="array_record")
    except tfds.core.DatasetNotFoundError:
        return None
    # The constructors of hundreds of data sets run here and may raise anything.
    except Exception as error:
        if "File format is already set" in str(error):
            raise UserError(
                f"TFDS data set '{name}' is stored in a format that needs TensorFlow; set "
                "--config.data.dir to another folder to prepare it again"
            ) from error
        reason = str(error).strip().partition("\n")[0]
        raise UserError(f"TFDS cannot open '{name}': {reason}") from error


def find_prepared_builder(name: str, directory: str):
    """Find the builder as find_builder does, and prepare its data first if necessary."""
    builder = find_builder(name, directory)
    with quiet_tfds():
        ready = builder is None or builder.is_prepared()
    if ready:
        return builder
    # Fails here rather than after a long download.
    image_feature(builder)
    prepare_builder(builder)
    return find_builder(name, directory)


def nearest_names(name: str) -> list[str]:
    """List the TFDS data sets whose names are most similar to `name`, the nearest first."""
    import tensorflow_datasets as tfds

    known = tfds.list_builders(with_community_datasets=False)
    return difflib.get_close_matches(name.lower().replace("-", "_"), known)


def open_builder(builder, split: str, look: Look) -> Source:
    """Open one split of a prepared TFDS data set, with 256 levels.

    The image is the feature `image` or the only Image, the label `label` or the only ClassLabel.
    look: its size crops and resizes to a square, 0 keeps the size; its channels are 1 for gray, 3
    for RGB, 0 keeps them.

    Raises UserError if there is no such split or image, and on loading if the data are damaged.
    """
    import tensorflow_datasets as tfds

    name = f"TFDS data set '{builder.name}'"
    choose_split(name, builder.info.splits, split)
    features = builder.info.features
    image = image_feature(builder)
    label = choose_feature(features, tfds.features.ClassLabel, "label")
    shape = output_shape(name, features[image], look.size, look.channels)
    classes = features[label].num_classes if label else 0
    size = builder.info.splits[split].num_examples

    name = f"'{builder.name}' in {builder.data_dir}"
    records = builder.as_data_source(split=split).data_source
    read = Records(records, name, image, label, shape, look._replace(channels=shape[-1]))
    source = encoded(name, shape, classes, size, read)
    names = tuple(features[label].names) if label else ()
    return replace(source, splits=tuple(builder.info.splits), class_names=names)


def image_feature(builder) -> str:
    """Return the name of the image feature; UserError if there is none or more than one."""
    import tensorflow_datasets as tfds

    features = builder.info.features
    name = choose_feature(features, tfds.features.Image, "image")
    if name is None:
        raise UserError(
            f"TFDS data set '{builder.name}' has no single image among its features: "
            f"{', '.join(sorted(features))}"
        )
    return name


def choose_feature(features, kind: type, preferred: str) -> str | None:
    """Return the name of the feature of `kind`: the preferred one, else the only one, else None."""
    names = [name for name, feature in features.items() if isinstance(feature, kind)]
    if preferred in names:
        return preferred
    return names[0] if len(names) == 1 else None


def output_shape(name: str, feature, image_size: int, channels: int) -> tuple[int, int, int]:
    """Return the shape [h, w, c] that images of a TFDS feature are decoded to."""
    height, width, stored = feature.shape
    channels = channels or stored
    if feature.np_dtype != np.uint8 or channels not in PIL_MODES:
        raise UserError(
            f"{name} has images of {feature.np_dtype.__name__} {list(feature.shape)}; "
            "expected uint8 with 1, 3 or 4 channels"
        )
    if image_size:
        return image_size, image_size, channels
    if None in (height, width):
        raise UserError(f"{name} has images of different sizes; set --config.data.image_size")
    return height, width, channels


@dataclass(frozen=True, eq=False)
class Records:
    """Reads a split by its TFDS data source `records`; the other fields as in open_builder."""

    records: Any
    name: str
    image: str
    label: str | None
    shape: tuple[int, int, int]
    look: Look

    def __call__(self, indices):
        """Read some images and their labels."""
        images = np.empty((len(indices), *self.shape), np.uint8)
        labels = np.zeros(len(indices), np.int32)
        for place, (index, file, label) in enumerate(self._stored(indices)):
            images[place], labels[place] = self._decode(index, file), label
        return images, labels

    def names(self, indices) -> list[str]:
        """Return the indices as text."""
        return [str(i) for i in indices]

    def sizes(self, indices) -> list[int]:
        """Return an empty list: the images are in records, not in files."""
        return []

    def contents(self, indices) -> Iterator[bytes]:
        """Yield pixels and labels: PNG's compression depends on who prepared the data."""
        for index, file, label in self._stored(indices):
            yield self._decode(index, file).tobytes() + b"%d" % label

    def _stored(self, indices) -> Iterator[tuple[int, bytes, int]]:
        """Yield index, file and label of some images."""
        from google.protobuf.message import DecodeError
        from tensorflow_datasets.proto import tf_example_pb2

        # Parsing CIFAR-10's 50,000 records takes 0.2 s this way and 1.5 s through TFDS's features.
        example = tf_example_pb2.Example  # pyright: ignore[reportAttributeAccessIssue]
        try:
            records = self.records.__getitems__(indices)
            for index, record in zip(indices, records, strict=True):
                values = example.FromString(record).features.feature
                (file,) = values[self.image].bytes_list.value
                (label,) = values[self.label].int64_list.value if self.label else (0,)
                yield index, file, label
        except (RuntimeError, ValueError, DecodeError) as error:
            reason = str(error).partition("\n")[0]
            remedy = "remove it to prepare it again"
            raise UserError(f"{self.name} is damaged ({reason}); {remedy}") from error

    def _decode(self, index: int, file: bytes):
        name = f"image {index} of {self.name}"
        pixels = decode_image(io.BytesIO(file), name, self.look)
        if pixels.shape != self.shape:
            raise UserError(f"{name} is {pixels.shape}, not {self.shape} as declared")
        return pixels
