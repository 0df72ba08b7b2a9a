"""Evaluate a split: python evaluate.py --workdir=runs/digits --split=test [--every=8]"""

from diffusion_jax.start import start

if __name__ == "__main__":
    start("evaluate")
