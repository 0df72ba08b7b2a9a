"""Packing is a bijection, and to an optimiser that works entry by entry it changes nothing."""

import jax
import numpy as np
import optax
import pytest

from diffusion_jax.errors import UserError
from diffusion_jax.models import network
from diffusion_jax.models.network import parameter_count
from diffusion_jax.models.packing import LIMIT, SMALL, pack, unpack, unpack_on_host
from diffusion_jax.models.unet import UNet

MODEL = UNet(1, channels=32, multipliers=(1, 2), blocks=1, attention_resolutions=(4,))


@pytest.fixture(scope="module")
def params():
    """A network with arrays on both sides of the limit."""
    return network.init(MODEL, jax.random.key(0), (8, 8, 1))


def test_unpacking_gives_back_what_was_packed(params):
    packed = pack(params)
    assert parameter_count(packed) == parameter_count(params)
    assert len(jax.tree.leaves(packed)) < len(jax.tree.leaves(params)) / 2
    assert all(a.size >= LIMIT for a in jax.tree.leaves({**packed, SMALL: np.zeros(LIMIT)}))
    jax.tree.map(
        np.testing.assert_array_equal, unpack(packed, jax.eval_shape(lambda: params)), params
    )


def test_only_float32_is_packed_and_no_layer_is_overwritten():
    mixed = {"layer": {"half": np.ones(3, np.float16), "whole": np.ones(3, np.float32)}}
    assert pack(mixed)["layer"]["half"].dtype == np.float16
    jax.tree.map(np.testing.assert_array_equal, unpack_on_host(pack(mixed), mixed), mixed)
    with pytest.raises(UserError, match="a layer called 'small', which is reserved"):
        pack({"small": {"kernel": np.ones(3, np.float32)}})


def test_unpacking_on_the_host_gives_the_same(params):
    packed, shapes = pack(params), jax.eval_shape(lambda: params)
    jax.tree.map(np.testing.assert_array_equal, unpack_on_host(packed, shapes), params)
    jax.tree.map(np.testing.assert_array_equal, pack(params, np.concatenate), packed)


def test_networks_without_small_arrays_are_packed_too():
    large = {"layer": {"kernel": np.ones((64, 64), np.float32)}}
    for back in (unpack(pack(large), large), unpack_on_host(pack(large), large)):
        jax.tree.map(np.testing.assert_array_equal, back, large)


def test_adam_moves_a_packed_tree_as_it_moves_the_tree(params):
    adam = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-3))
    grads = jax.tree.map(
        lambda a: np.cos(np.arange(a.size, dtype=np.float32)).reshape(a.shape) * 0.1, params
    )

    @jax.jit
    def moved(tree, grads):
        updates, _ = adam.update(grads, adam.init(tree), tree)
        return optax.apply_updates(tree, updates)

    packed = unpack(moved(pack(params), pack(grads)), params)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-9),
        packed,
        moved(params, grads),
    )
