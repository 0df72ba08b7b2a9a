"""Sample from a trained run: python sample.py --workdir=runs/digits [--num=64] [--out=x.png]"""

from diffusion_jax.command_line import run
from diffusion_jax.commands.sample import main

if __name__ == "__main__":
    run(main)
