"""Denoising diffusion probabilistic models in JAX and Flax, verified term by term."""

__version__ = "0.1.0"
