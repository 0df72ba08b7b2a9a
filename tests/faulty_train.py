"""`train.py` with a fault: python faulty_train.py FAULT STEP, then train.py's own arguments."""

import sys

import jax.numpy as jnp

from diffusion_jax import build, command_line
from diffusion_jax.commands import train
from diffusion_jax.training import feed


def crash(at):
    """The batch after `at` updates cannot be read."""
    in_memory = feed.in_memory

    def faulty(dataset, order):
        batch = in_memory(dataset, order)

        def read(step):
            if step == at:
                raise RuntimeError("a fault in the loop")
            return batch(step)

        return read

    feed.in_memory = faulty


def not_a_number(at):
    """The loss after `at` updates is NaN, once."""
    loss = build.loss

    def faulty(config, diffusion):
        good = loss(config, diffusion)

        def batch_loss(params, memory, step, batch):
            value, losses = good(params, memory, step, batch)
            return jnp.where(step == at, jnp.nan, value), losses

        return batch_loss

    build.loss = faulty


if __name__ == "__main__":
    fault, at = sys.argv[1:3]
    {"crash": crash, "nan": not_a_number}[fault](int(at))
    sys.argv[1:3] = []
    command_line.run(train.main)
