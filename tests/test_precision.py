"""What bfloat16 and recomputation change: rounding, at every t alike; memory, and nothing else."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tiny import Tiny, settings

from diffusion_jax import build
from diffusion_jax.core.bound import term_nats
from diffusion_jax.core.process import q_sample
from diffusion_jax.data.transforms import to_unit_range
from diffusion_jax.devices.compiler import compiler_options
from diffusion_jax.models import network, unet
from diffusion_jax.models.layers import GroupNorm
from diffusion_jax.models.resampling import DoubleConv
from diffusion_jax.models.unet import UNet

IMAGES = 16
SMALL = {"model__multipliers": "1", "model__attention_resolutions": "8"}


def drawn(model: UNet):
    """Parameters as of a new network, but with no kernel zero: its output is about one."""
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        if leaf.ndim > 1:
            size = (leaf.size / leaf.shape[-1]) ** -0.5
            return rng.normal(0, size, leaf.shape).astype(np.float32)
        return np.full(leaf.shape, path[-1].key == "scale", np.float32)

    return jax.tree.map_with_path(draw, network.parameter_shapes(model, (8, 8, 1)))


@pytest.fixture(scope="module")
def per_t():
    """Of one network on digits, by precision: predicted noise, terms of the bound `[T, b, n]`."""
    config = settings(**SMALL)
    source = build.source(config)
    steps, levels = config.schedule.steps, source.spec.levels
    params = drawn(build.diffusion(config, source.spec).model)
    t = jnp.repeat(jnp.arange(steps), IMAGES)
    x0 = jnp.concatenate([to_unit_range(source.load().images[:IMAGES], levels)] * steps)
    eps = jax.random.normal(jax.random.key(1), x0.shape)

    def run(dtype):
        diffusion = build.diffusion(settings(model__dtype=dtype, **SMALL), source.spec)

        @jax.jit
        def predict(params, x0, eps):
            xt = q_sample(diffusion.schedule, x0, t, eps)
            denoised = diffusion.denoise(params, None, clip=False)(xt, t)
            return denoised.eps, term_nats(diffusion.reverse, denoised, x0, eps, t, levels)

        by_t = partial(jnp.reshape, shape=(steps, IMAGES, -1))
        return jax.tree.map(by_t, predict(params, x0, eps))

    return {dtype: run(dtype) for dtype in ("float32", "bfloat16")}


def test_bfloat16_drifts_from_float32_at_no_t(per_t):
    """By less than 2% of what it predicts there, and nowhere by twice the middle drift."""
    exact, rounded = (per_t[dtype][0] for dtype in ("float32", "bfloat16"))
    drift = np.sqrt(np.mean((rounded - exact) ** 2, (1, 2)) / np.mean(exact**2, (1, 2)))
    assert (drift > 0).all()
    assert drift.max() < 0.02
    assert drift.max() < 2 * np.median(drift)


def test_bfloat16_changes_no_term_of_the_bound(per_t):
    """By less than 1% each, and less than 0.3% in all."""
    exact, rounded = (per_t[dtype][1].mean((1, 2)) for dtype in ("float32", "bfloat16"))
    np.testing.assert_allclose(rounded, exact, rtol=0.01)
    assert float(rounded.sum()) == pytest.approx(float(exact.sum()), rel=0.003)


# What may touch a bfloat16 number: products, sums of two, and moves.
ROUNDED = {"conv_general_dilated", "dot_general", "add", "convert_element_type"}
MOVES = {"reshape", "transpose", "concatenate", "broadcast_in_dim", "optimization_barrier", "name"}


def equations(jaxpr):
    """All of a program, those of its inner programs too."""
    for equation in jaxpr.eqns:
        inner = [p for p in equation.params.values() if hasattr(p, "eqns") or hasattr(p, "jaxpr")]
        yield from [] if inner else [equation]
        for each in inner:
            yield from equations(getattr(each, "jaxpr", each))


@pytest.mark.pinned
def test_bfloat16_numbers_are_only_multiplied_added_and_moved():
    """So norms, the softmax's exponentials and sums, sines and swishes are float32."""
    model = UNet(1, **settings(model__dtype="bfloat16", model__scale_shift_norm=True).model)
    x, t = jnp.zeros((2, 8, 8, 1)), jnp.zeros(2)
    params = network.parameter_shapes(model, (8, 8, 1))
    layers = {"float32": set(), "bfloat16": set()}

    def spy(call, args, kwargs, context):
        out = call(*args, **kwargs)
        if isinstance(context.module, nn.Dense | nn.Conv | DoubleConv | GroupNorm):
            layers[str(out.dtype)].add("/".join(context.module.path))
        return out

    with nn.intercept_methods(spy):
        program = jax.make_jaxpr(lambda p: network.apply(model, p, x, t))(params)
    rounded = {
        equation.primitive.name
        for equation in equations(program.jaxpr)
        if any(out.aval.dtype == jnp.bfloat16 for out in equation.outvars)
    }
    assert ROUNDED <= rounded <= ROUNDED | MOVES
    kept = [each for each in equations(program.jaxpr) if each.primitive.name == "name"]
    assert kept
    assert all(each.outvars[0].aval.dtype == jnp.bfloat16 for each in kept)
    islands = ("norm", "condition", "conv_out")
    assert all(any(name in path for name in islands) for path in layers["float32"])
    assert not any(name in path for name in islands for path in layers["bfloat16"])
    assert layers["float32"] >= {"norm_out", "condition/time_0", "condition/time_1", "conv_out"}


def test_parameters_gradients_and_optimiser_stay_float32():
    """Everything a bfloat16 run's step takes and gives."""
    tiny = Tiny(model__dtype="bfloat16", model__remat=True)
    state = jax.eval_shape(tiny.training.init, jax.random.key(0))
    given = jax.eval_shape(tiny.training.make_step(), state, tiny.batch(0))
    for leaf in jax.tree.leaves((state, given)):
        assert leaf.dtype in (jnp.float32, jnp.int32)


@pytest.mark.pinned
def test_recomputing_blocks_gives_the_same_in_less_memory(monkeypatch):
    model = UNet(1, channels=8, multipliers=(1,), blocks=1, attention_resolutions=())
    params = drawn(model)
    x = np.random.default_rng(1).normal(size=(64, 8, 8, 1)).astype(np.float32)
    t = np.linspace(0, 999, 64, dtype=np.float32)

    def compiled(remat):
        def loss(params):
            return jnp.mean(network.apply(model.clone(remat=remat), params, x, t) ** 2)

        lowered = jax.jit(jax.value_and_grad(loss)).lower(params)
        return lowered.compile(compiler_options=compiler_options())

    recomputing = compiled(True)
    monkeypatch.setattr(unet, "recomputing", lambda layer, everything: layer)
    keeping = compiled(False)
    used = [each.memory_analysis().temp_size_in_bytes for each in (keeping, recomputing)]
    assert used[1] < 0.7 * used[0]
    value, grads = keeping(params)
    again, theirs = recomputing(params)
    np.testing.assert_allclose(again, value, rtol=1e-6)
    difference = optax.tree.norm(jax.tree.map(jnp.subtract, grads, theirs))
    assert difference <= 1e-6 * optax.tree.norm(grads)
