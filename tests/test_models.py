"""Laws of the U-Net: its size, what each image may depend on, precision, refusals."""

import re
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.core.keys import fold
from diffusion_jax.errors import UserError
from diffusion_jax.models import network, unet
from diffusion_jax.models.embedding import sinusoidal_embedding
from diffusion_jax.models.layers import conv, fan_avg_uniform
from diffusion_jax.models.unet import UNet, check_image_size

IMAGE = (8, 8, 3)
KEY = jax.random.key(0)


def tiny(**settings) -> UNet:
    defaults = {"channels": 8, "multipliers": (1, 2), "blocks": 1, "attention_resolutions": (4,)}
    return UNet(3, **{**defaults, **settings})


def shapes(model: UNet, image_shape=IMAGE):
    return network.parameter_shapes(model, image_shape)


def perturbed(model: UNet, image_shape=IMAGE):
    """Parameters none of which is zero, so that every path through the network carries signal."""
    rng = np.random.default_rng(1)

    def draw(leaf):
        fan_in = leaf.size // leaf.shape[-1]
        return jnp.asarray(rng.normal(size=leaf.shape) / fan_in**0.5, jnp.float32)

    return jax.tree.map(draw, shapes(model, image_shape))


def batch(size=3, image_shape=IMAGE):
    x = jax.random.uniform(jax.random.key(2), (size, *image_shape), minval=-1)
    return x, jnp.linspace(0, 999, size), jax.random.split(jax.random.key(3), size)


@pytest.fixture(scope="module")
def plain():
    """A tiny network, its parameters and its compiled `(params, x, t, dropout_keys)`."""
    model = tiny()
    run = jax.jit(lambda params, x, t, keys=None: network.apply(model, params, x, t, None, keys))
    return model, perturbed(model), run


# Size and layout


def test_cifar10_network_has_the_papers_number_of_parameters():
    assert network.parameter_count(shapes(UNet(3), (32, 32, 3))) == 35_746_307


@pytest.mark.parametrize(
    ("image_shape", "resolutions", "levels"),
    [
        ((32, 32, 3), (16,), {1}),
        ((32, 32, 3), (16, 8), {1, 2}),
        ((16, 32, 3), (16,), {1}),
        ((32, 32, 3), (), set()),
    ],
)
def test_attention_stands_where_the_longer_side_is_listed(image_shape, resolutions, levels):
    names = shapes(tiny(multipliers=(1, 1, 1), attention_resolutions=resolutions), image_shape)
    found = {name for name in names if re.fullmatch(r"(up|down)_\d_attention_\d", name)}
    down = {f"down_{level}_attention_0" for level in levels}
    up = {f"up_{level}_attention_{i}" for level in levels for i in (0, 1)}
    assert found == down | up
    assert "middle_attention" in names


def test_downsampling_pads_below_and_to_the_right_as_tensorflow_does():
    ones = {"params": {"kernel": jnp.ones((3, 3, 1, 1)), "bias": jnp.zeros(1)}}
    covered = conv(1, strides=2).apply(ones, jnp.ones((1, 4, 4, 1)))[0, :, :, 0]
    np.testing.assert_array_equal(covered, [[9, 6], [6, 4]])


@pytest.mark.parametrize(
    ("settings", "image_shape"),
    [
        ({}, (16, 8, 1)),
        ({"scale_shift_norm": True, "heads": 2}, IMAGE),
        ({"resample_in_blocks": True, "multipliers": (1, 2, 3)}, (8, 12, 2)),
        ({"channels": 36, "blocks": 2, "multipliers": [1]}, (5, 7, 3)),
        ({"dtype": "bfloat16", "remat": True, "classes": 4}, IMAGE),
    ],
)
def test_output_has_the_images_size(settings, image_shape):
    model = tiny(**settings)
    x, t, keys = batch(2, image_shape)
    run = lambda params: network.apply(model, params, x, t, None, keys)  # noqa: E731
    out = jax.eval_shape(run, shapes(model, image_shape))
    assert out.shape == (2, *image_shape[:2], 3)
    assert out.dtype == jnp.float32


def test_options_together_run_and_see_the_time():
    model = tiny(scale_shift_norm=True, resample_in_blocks=True, heads=2)
    params = perturbed(model)
    x, _, _ = batch(1)
    run = jax.jit(lambda t: network.apply(model, params, x, t))
    early, late = run(jnp.zeros(1)), run(jnp.full(1, 999.0))
    assert np.isfinite(early).all()
    assert jnp.abs(early - late).max() > 1e-3


# Initialisation


def test_a_new_network_answers_zero_and_keys_matter(plain):
    model, _, run = plain
    x, t, _ = batch()
    params = network.init(model, KEY, IMAGE)
    other = network.init(model, jax.random.key(9), IMAGE)
    assert not run(params, x, t).any()
    assert (params["conv_in"]["kernel"] != other["conv_in"]["kernel"]).all()
    for name in ("down_0_block_0", "up_1_block_0"):
        assert not params[name]["conv_1"]["kernel"].any()
        assert params[name]["conv_0"]["kernel"].all()
    assert not params["middle_attention"]["project"]["kernel"].any()


def test_kernels_are_scaled_by_the_mean_of_fan_in_and_fan_out():
    kernel = fan_avg_uniform(KEY, (3, 3, 24, 72))
    assert jnp.var(kernel) == pytest.approx(1 / (9 * (24 + 72) / 2), rel=0.03)
    assert jnp.abs(kernel).max() <= (6 / (9 * (24 + 72))) ** 0.5


def test_gradients_reach_every_parameter():
    model = tiny(classes=2)
    params = perturbed(model)
    x, t, _ = batch()
    label = jnp.arange(3)
    noise = jax.random.normal(KEY, x.shape)

    @jax.jit
    @jax.grad
    def gradient(params):
        return jnp.mean((network.apply(model, params, x, t, label) - noise) ** 2)

    for path, leaf in jax.tree.leaves_with_path(gradient(params)):
        # A key's bias moves all logits of a query alike, and the softmax does not see it.
        unseen = jax.tree_util.keystr(path).endswith("['key']['bias']")
        assert unseen or jnp.abs(leaf).max() > 1e-5, jax.tree_util.keystr(path)


# What image i may depend on


@pytest.mark.parametrize("with_dropout", [False, True])
def test_an_image_does_not_depend_on_the_rest_of_the_batch(plain, with_dropout):
    _, params, run = plain
    x, t, keys = batch()
    keys = keys if with_dropout else None
    out = run(params, x, t, keys)
    order = jnp.array([2, 0, 1])
    shuffled = run(params, x[order], t[order], keys[order] if with_dropout else None)
    np.testing.assert_allclose(shuffled, out[order], atol=1e-5)
    replaced = run(params, x.at[1:].set(0.5), t.at[1:].set(7.0), keys)
    np.testing.assert_array_equal(replaced[0], out[0])
    alone = run(params, x[:1], t[:1], keys[:1] if with_dropout else None)
    np.testing.assert_allclose(alone[0], out[0], atol=1e-5)


def test_dropout_is_off_without_keys_and_new_with_new_keys(plain):
    _, params, run = plain
    x, t, keys = batch()
    out = run(params, x, t, keys)
    np.testing.assert_array_equal(run(params, x, t, keys), out)
    others = run(params, x, t, jax.random.split(jax.random.key(4), 3)), run(params, x, t)
    assert all(jnp.abs(other - out).max() > 1e-3 for other in others)


def test_pmap_equals_jit_with_dropout():
    model = tiny(multipliers=(1,))
    params = perturbed(model)
    devices = min(4, jax.device_count())
    x, t, keys = batch(devices)
    run = lambda x, t, keys: network.apply(model, params, x, t, None, keys)  # noqa: E731
    one_each = jax.pmap(run, devices=jax.devices()[:devices])
    split = one_each(*(array[:, None] for array in (x, t, keys)))
    np.testing.assert_allclose(split[:, 0], jax.jit(run)(x, t, keys), atol=1e-5)


@pytest.mark.parametrize("in_blocks", [False, True])
def test_no_two_blocks_share_a_key_of_dropout(in_blocks, monkeypatch):
    monkeypatch.setattr(unet, "recomputing", lambda layer, everything: layer)  # it hides its keys
    model = tiny(resample_in_blocks=in_blocks)
    params = shapes(model)
    x, t, keys = batch(1)
    seen = []

    def spy(call, args, kwargs, context):
        if type(context.module).__name__ == "ResBlock" and context.method_name == "__call__":
            seen.append(jax.random.key_data(args[2]))
        return call(*args, **kwargs)

    @jax.jit
    def keys_of_blocks(params):
        network.apply(model, params, x, t, None, keys)
        return jnp.concatenate(seen)

    with nn.intercept_methods(spy):
        used = keys_of_blocks(jax.tree.map(jnp.zeros_like, params))
    blocks = [
        name for name in params if re.search("block|resample" if in_blocks else "block", name)
    ]
    every = jnp.concatenate([jax.random.key_data(fold(keys, n)) for n in range(len(blocks))])
    np.testing.assert_array_equal(used, every)
    assert len(list(model._dropout_of_blocks(keys))) == len(blocks)


# Time and class


def test_sinusoidal_embedding_is_the_papers():
    t = np.array([0, 1, 17.5, 999])
    w = np.exp(-np.log(10000) / 63 * np.arange(64))
    expected = np.concatenate([np.sin(t[:, None] * w), np.cos(t[:, None] * w)], axis=1)
    # float32 angles of up to 999 carry an error of 999 * 2^-24 from each of two roundings.
    np.testing.assert_allclose(sinusoidal_embedding(jnp.array(t), 128), expected, atol=1.3e-4)


def test_the_smallest_network_sees_the_time():
    model = tiny(channels=4, multipliers=(1,), attention_resolutions=())
    params = perturbed(model)
    x, _, _ = batch(1)
    run = jax.jit(lambda t: network.apply(model, params, x, t))
    assert jnp.abs(run(jnp.zeros(1)) - run(jnp.full(1, 999.0))).max() > 1e-3


def test_labels_matter_and_none_is_the_last_class():
    model = tiny(classes=2, multipliers=(1,))
    x, t, _ = batch()
    params = perturbed(model)
    run = jax.jit(lambda label: network.apply(model, params, x, t, label))
    first, second, nothing = (run(jnp.full(3, label)) for label in range(3))
    np.testing.assert_array_equal(run(None), nothing)
    for a, b in [(first, second), (first, nothing), (second, nothing)]:
        assert (jnp.abs(a - b).max((1, 2, 3)) > 1e-3).all()


# Refusals


@pytest.mark.parametrize(
    ("size", "levels", "message"),
    [
        ((30, 32), 4, r"30x32 is not divisible by 8 \(2\^\(levels-1\)\); nearest: 24x32 or 32x32"),
        ((28, 28), 4, "nearest: 24x24 or 32x32"),
        ((5, 8), 4, "nearest: 8x8$"),
        ((9, 13), 2, "nearest: 8x12 or 10x14"),
    ],
)
def test_sizes_that_cannot_be_halved_are_refused_with_the_nearest(size, levels, message):
    with pytest.raises(UserError, match=message):
        check_image_size(*size, levels)


@pytest.mark.parametrize(("size", "levels"), [((24, 40), 4), ((7, 5), 1)])
def test_sizes_that_can_be_halved_come_out_as_they_went_in(size, levels):
    model = tiny(multipliers=(1,) * levels)
    x, t = jnp.zeros((2, *size, 3)), jnp.zeros(2)
    params = network.init(model, jax.random.key(0), (*size, 3))
    assert jax.eval_shape(partial(network.apply, model), params, x, t).shape == x.shape


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"channels": 7}, "channels is 7"),
        ({"channels": 2}, "at least 4"),
        ({"heads": 3}, "heads is 3; it must divide model.channels, 8"),
        ({"heads": 0}, "heads is 0"),
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"dtype": "float16"}, "unknown dtype 'float16'; known: bfloat16, float32"),
        ({"multipliers": (1, 2, 2, 2, 2)}, "8x8 is not divisible by 16"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        shapes(tiny(**settings))


def test_labels_for_a_network_without_classes_are_refused(plain):
    model, params, _ = plain
    x, t, _ = batch()
    with pytest.raises(UserError, match="no classes"):
        network.apply(model, params, x, t, jnp.zeros(3, jnp.int32))
