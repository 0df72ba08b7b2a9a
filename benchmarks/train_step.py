"""The README's entry to `benchmarks.speed.train_step`."""

from benchmarks.speed.train_step import main
from diffusion_jax.command_line import run

if __name__ == "__main__":
    run(main)
