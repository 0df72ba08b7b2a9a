"""Splits: slices such as `train[:90%]`, and a share of the images that is held out for testing."""

import hashlib
import re
from typing import NamedTuple

import numpy as np

from diffusion_jax.data.dataset import Source
from diffusion_jax.errors import UserError

SLICE = re.compile(r"([^\[\]]+)(?:\[(-?\d+%?)?:(-?\d+%?)?\])?")


class Split(NamedTuple):
    """A slice of a split: `train[10%:]` is `Split("train", "10%", "")`."""

    name: str
    first: str = ""
    last: str = ""

    def indices(self, size: int) -> slice:
        """Return the indices of this slice of `size` images; shares are rounded to whole images."""
        first, last = _bound(self.first, size, 0), _bound(self.last, size, size)
        return slice(min(max(first, 0), size), min(max(last, 0), size))


def parse_split(text: str) -> Split:
    """Parse `NAME`, `NAME[:90%]`, `NAME[1000:2000]`, `NAME[-500:]`.

    Raises:
        UserError: it is none of these.
    """
    match = SLICE.fullmatch(text)
    if match is None:
        raise UserError(
            f"split '{text}' is not understood; write it as train, train[:90%], train[90%:] or "
            "train[1000:2000]"
        )
    return Split(match[1], match[2] or "", match[3] or "")


def _bound(text: str, size: int, default: int) -> int:
    if not text:
        return default
    bound = round(size * int(text[:-1]) / 100) if text.endswith("%") else int(text)
    return bound + size if text.startswith("-") else bound


def sliced(source: Source, split: Split) -> Source:
    """Return the images of a slice.

    Images that are sorted by class are sliced in an order that depends on their names alone, so
    that every slice has images of all classes.

    Raises:
        UserError: there are none.
    """
    if not (split.first or split.last):
        return source
    order = np.arange(source.size)
    if source.sorted_by_class:
        order = np.argsort([_position(name) for name in source.names])
    indices = np.sort(order[split.indices(source.size)])
    if not len(indices):
        raise UserError(
            f"split '{split.name}[{split.first}:{split.last}]' holds none of the {source.size} "
            f"images of '{split.name}'"
        )
    return source.take(indices)


def held_out(source: Source, share: float, rest: bool) -> Source:
    """Return a share of the images, or the rest of them.

    The choice depends only on the images' names, so it stays the same when other images are added.

    Raises:
        UserError: there are none.
    """
    held = np.array([_position(name) < share for name in source.names])
    indices = np.flatnonzero(~held if rest else held)
    if not len(indices):
        part = "all" if rest else "none"
        raise UserError(
            f"config.data.holdout={share:g} holds out {part} of the {source.size} images; "
            f"set it {'lower' if rest else 'higher'}"
        )
    return source.take(indices)


def _position(name: str) -> float:
    """Return a number in [0, 1), uniform over names."""
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8]) / 2**64
