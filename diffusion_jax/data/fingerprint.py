"""A fingerprint by which a resumed run recognises its images."""

import hashlib

import numpy as np

from diffusion_jax.data.dataset import Source

SAMPLED = 64  # images whose content is hashed


def fingerprint(source: Source) -> str:
    """Return a hash of the images' names, of the sizes of their files, and of some contents.

    The contents are those of `SAMPLED` images at fixed places.
    """
    digest = hashlib.sha256(f"{source.size}\n".encode())
    for name in source.read.names():
        digest.update(name.encode("utf-8", "surrogateescape") + b"\0")
    for size in source.read.sizes():
        digest.update(f"{size} ".encode())
    chosen = np.linspace(0, source.size - 1, min(SAMPLED, source.size)).astype(int)
    for content in source.read.contents(chosen):
        digest.update(hashlib.sha256(content).digest())
    return digest.hexdigest()[:32]
