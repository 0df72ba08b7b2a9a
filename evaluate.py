"""Evaluate a split: python evaluate.py --workdir=runs/digits --split=test [--every=8]"""

from diffusion_jax.command_line import run
from diffusion_jax.commands.evaluate import main

if __name__ == "__main__":
    run(main)
