"""The classes of a run's images: do they fit the network, and how many images has each?"""

from collections.abc import Sequence

import numpy as np

from diffusion_jax.configuration import Config
from diffusion_jax.data.dataset import Source
from diffusion_jax.errors import UserError, counted

SHOWN = 20  # classes in one line


def check_labels(config: Config, source: Source) -> None:
    """Refuse a conditional network, or balanced batches, for images without labels.

    Raises:
        UserError: it says why there are no labels.
    """
    wanted = config.model.get("classes", 0)
    if config.data.balance and not source.classes:
        raise UserError(f"config.data.balance needs classes, but {_reason(source)}")
    if config.data.balance and config.data.stream and source.labels is None:
        raise UserError(
            "config.data.balance needs all labels before the first step; set "
            "config.data.stream=False"
        )
    if wanted and not source.classes:
        raise UserError(f"config.model.classes is {wanted}, but {_reason(source)}")


def _reason(source: Source) -> str:
    return source.unlabelled or (
        "the images have no labels; give labels, or use a config without classes"
    )


def class_line(names: Sequence[str], counts: np.ndarray) -> str:
    """Return one line with the number of images in each class."""
    classes = len(counts)
    shown = [
        f"{label} = {names[label]}: {count:,}" if names else f"{label}: {count:,}"
        for label, count in enumerate(counts[:SHOWN])
    ]
    more = f", and {counted(classes - SHOWN, 'more class')}" if classes > SHOWN else ""
    return f"images per class: {', '.join(shown)}{more}"


def empty_classes(names: Sequence[str], counts: np.ndarray) -> str:
    """Return a warning that names the classes without images; '' if there are none."""
    empty = [
        names[label] if names else str(label) for label, count in enumerate(counts) if not count
    ]
    if not empty:
        return ""
    more = f" and {len(empty) - SHOWN:,} more" if len(empty) > SHOWN else ""
    return (
        f"no images of {counted(len(empty), 'class')}: {', '.join(empty[:SHOWN])}{more}; samples "
        "of them would be noise. Number the labels 0, 1, 2, ... without gaps"
    )
