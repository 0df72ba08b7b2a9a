"""What the backward pass computes again is what it would have found, and takes less memory."""

import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from diffusion_jax.core.timesteps import TIMESTEPS
from diffusion_jax.devices.compiler import compiler_options
from diffusion_jax.models.layers import Attention, ResBlock
from diffusion_jax.models.recompute import recomputing
from diffusion_jax.training.optimizer import optimizer
from diffusion_jax.training.state import create
from diffusion_jax.training.step import Losses, make_step

IMAGES, SIDE, CHANNELS = 64, 8, 16


class Net(nn.Module):
    """Three residual blocks and attention; `wrap` makes of a layer what is used in its place."""

    wrap: object

    @nn.compact
    def __call__(self, x, condition, keys):
        for i in range(3):
            block = self.wrap(ResBlock)(CHANNELS, 0.1, False, None, "float32", name=f"block_{i}")
            x = block(x, condition, keys)
        return self.wrap(Attention)(2, "float32", name="attention")(x)


def plain(layer):
    return layer


def some(layer):
    return recomputing(layer, everything=False)


def everything(layer):
    return recomputing(layer, everything=True)


@pytest.fixture(scope="module")
def gradients():
    """Loss and gradient, compiled as for training, and what they gave, by how layers are used."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(IMAGES, SIDE, SIDE, CHANNELS)).astype(np.float32)
    condition = rng.normal(size=(IMAGES, CHANNELS)).astype(np.float32)
    keys = jax.random.split(jax.random.key(0), IMAGES)
    shapes = jax.eval_shape(Net(plain).init, jax.random.key(0), x, condition, keys)
    params = jax.tree.map(lambda a: rng.normal(0, 0.1, a.shape).astype(np.float32), shapes)

    def compiled(wrap):
        def loss(params):
            return jnp.mean(jnp.square(Net(wrap).apply(params, x, condition, keys)))  # pyright: ignore

        lowered = jax.jit(jax.value_and_grad(loss)).lower(params)
        program = lowered.compile(compiler_options=compiler_options())
        return program, program(params)

    return {wrap: compiled(wrap) for wrap in (plain, some, everything)}


@pytest.mark.parametrize("wrap", [some, everything])
def test_loss_and_gradient_are_those_of_the_plain_layers(gradients, wrap):
    value, grads = gradients[plain][1]
    again, theirs = gradients[wrap][1]
    np.testing.assert_allclose(again, value, rtol=1e-6)
    difference = optax.tree.norm(jax.tree.map(jnp.subtract, grads, theirs))
    assert difference <= 1e-6 * optax.tree.norm(grads)


@pytest.mark.pinned
def test_the_more_is_computed_again_the_less_is_kept(gradients):
    used = [gradients[wrap][0].memory_analysis().temp_size_in_bytes for wrap in gradients]
    assert used[1] < 0.9 * used[0]
    assert used[2] < 0.9 * used[1]


@pytest.mark.pinned
def test_an_update_copies_neither_parameters_nor_moments():
    side = 1024

    def loss(params, memory, step, batch):
        value = jnp.mean(params["a"] ** 3 * batch) + jnp.mean(params["b"] ** 3 * batch)
        return value, Losses(jnp.ones(1, jnp.int32), value[None])

    timesteps, adam = TIMESTEPS["uniform"](10), optimizer(lambda _: 1e-3, 0.9, 0.999, 1e-8, 0.1, 1)
    state = create({"a": jnp.ones((side, side)), "b": jnp.ones((side, side))}, adam, timesteps)
    step = make_step(loss, timesteps, adam, lambda _: 1e-3, 0.999)
    lowered = jax.jit(step, donate_argnums=0).lower(state, jnp.ones((side, side)))
    program = lowered.compile(compiler_options=compiler_options()).as_text()
    assert not re.findall(rf"f32\[{side},{side}\]\S* copy\(", program)
