"""A fingerprint by which a resumed run recognises its images."""

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from diffusion_jax.data.dataset import Read

SAMPLED = 64  # images whose content is hashed


def fingerprint(read: "Read", size: int) -> str:
    """Return a hash of the images' names, of the sizes of their files, and of some contents.

    The contents are those of `SAMPLED` images at fixed places.
    """
    digest = hashlib.sha256(f"{size}\n".encode())
    for name in read.names(range(size)):
        digest.update(name.encode("utf-8", "surrogateescape") + b"\0")
    for length in read.sizes(range(size)):
        digest.update(f"{length} ".encode())
    for content in read.contents(np.linspace(0, size - 1, min(SAMPLED, size)).astype(int)):
        digest.update(hashlib.sha256(content).digest())
    return digest.hexdigest()[:32]
