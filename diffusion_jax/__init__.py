"""Denoising diffusion probabilistic models in JAX and Flax, proven term by term."""

__version__ = "0.1.0"
