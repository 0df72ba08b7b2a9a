"""Laws of sampling, with the exact denoiser in place of a network."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.core import exact, schedules
from diffusion_jax.core.process import VARIANCES
from diffusion_jax.samplers import grids
from diffusion_jax.samplers.sample import SAMPLERS, sample, scan_moves, start

SCHEDULE = schedules.log_snr_linear(200, 17)
MEAN, VAR = 0.3, 0.16
DENOISE = exact.denoiser(SCHEDULE, exact.gaussian(MEAN, VAR))
FIXED = [name for name, each in VARIANCES.items() if not each.learned]
COUNT = 20_000


def chain_moments(moves, model_var):
    """Mean and variance of the ancestral chain on Gaussian data, in closed form, float64.

    The exact x0 is affine in x_t, so every move maps a Gaussian to a Gaussian.
    """
    mean, var = 0.0, 1.0
    for i, t in enumerate(moves.t):
        signal, noise = SCHEDULE.signal[t], SCHEDULE.noise[t]
        slope = signal * VAR / (signal**2 * VAR + noise**2)
        gain = moves.x0_weight[i] * slope + moves.xt_weight[i]
        offset = moves.x0_weight[i] * MEAN * (1.0 - slope * signal)
        mean = gain * mean + offset
        var = gain**2 * var + (model_var[i] if moves.s[i] >= 0 else 0.0)
    return mean, var


@pytest.mark.parametrize("steps", [7, 50, 200])
@pytest.mark.parametrize("variance", FIXED)
def test_ancestral_moments_follow_the_closed_form(variance, steps):
    moves = grids.uniform(SCHEDULE, steps)
    keys = jax.random.split(jax.random.key(0), COUNT)
    x = np.asarray(sample(SAMPLERS["ancestral"](variance), DENOISE, keys, (1, 1, 1), moves))
    mean, var = chain_moments(moves, np.exp(VARIANCES[variance].log_var(moves).offset))
    assert abs(x.mean() - mean) < 4.0 * np.sqrt(var / COUNT)
    assert abs(x.var() / var - 1.0) < 4.0 * np.sqrt(2.0 / COUNT)


@pytest.mark.parametrize(("output", "fixed"), [(-1.0, "fixed_small"), (1.0, "fixed_large")])
def test_a_learned_variance_at_its_ends_is_a_fixed_one(output, fixed):
    """On a respaced grid too: the interpolation is between the variances of the moves taken."""
    moves = grids.uniform(SCHEDULE, 20)
    keys = jax.random.split(jax.random.key(4), 3)

    def denoise(x, t):
        return DENOISE(x, t)._replace(var_output=jnp.full_like(x, output))

    learned = sample(SAMPLERS["ancestral"]("learned_range"), denoise, keys, (2, 2, 1), moves)
    plain = sample(SAMPLERS["ancestral"](fixed), DENOISE, keys, (2, 2, 1), moves)
    np.testing.assert_allclose(learned, plain, atol=2e-6)


def test_many_steps_recover_the_data():
    moves = grids.uniform(SCHEDULE, 200)
    mean, var = chain_moments(moves, np.exp(VARIANCES["fixed_large"].log_var(moves).offset))
    assert abs(mean - MEAN) < 0.02
    assert abs(var / VAR - 1.0) < 0.05


@pytest.mark.parametrize("name", SAMPLERS)
def test_cutting_the_scan_changes_nothing(name):
    sampler = SAMPLERS[name]("fixed_small")
    rows = sampler.rows(grids.uniform(SCHEDULE, 20))
    keys = jax.random.split(jax.random.key(1), 4)
    begun = start(sampler, keys, (2, 2, 1))
    whole = scan_moves(sampler, DENOISE, keys, begun, rows)
    first = scan_moves(sampler, DENOISE, keys, begun, jax.tree.map(lambda a: a[:10], rows))
    second = scan_moves(sampler, DENOISE, keys, first, jax.tree.map(lambda a: a[10:], rows))
    np.testing.assert_array_equal(whole.x, second.x)


@pytest.mark.parametrize("name", SAMPLERS)
def test_an_image_depends_on_its_key_alone(name):
    sampler, moves = SAMPLERS[name]("fixed_small"), grids.uniform(SCHEDULE, 20)
    keys = jax.random.split(jax.random.key(2), 6)
    together = sample(sampler, DENOISE, keys, (2, 2, 1), moves)
    turned = sample(sampler, DENOISE, keys[::-1], (2, 2, 1), moves)
    np.testing.assert_array_equal(together, turned[::-1])
    assert len(np.unique(np.asarray(together)[:, 0, 0, 0])) == 6


def test_uniform_grid_reaches_from_the_last_step_to_the_data():
    for steps in (1, 2, 7, 50, 200):
        moves = grids.uniform(SCHEDULE, steps)
        assert len(moves.t) == steps
        assert moves.t[0] == 199
        assert moves.s[-1] == -1
        assert np.all(np.diff(moves.t) < 0)
        np.testing.assert_array_equal(moves.t[1:], moves.s[:-1])


@pytest.mark.parametrize("steps", [0, 201])
def test_impossible_numbers_of_steps_are_refused(steps):
    with pytest.raises(ValueError, match=r"steps must lie in 1 \.\. 200"):
        grids.uniform(SCHEDULE, steps)


def test_sampling_is_jit_safe():
    sampler, moves = SAMPLERS["ancestral"]("fixed_small"), grids.uniform(SCHEDULE, 5)
    keys = jax.random.split(jax.random.key(3), 2)
    plain = sample(sampler, DENOISE, keys, (2, 2, 1), moves)
    jitted = jax.jit(lambda keys: sample(sampler, DENOISE, keys, (2, 2, 1), moves))(keys)
    np.testing.assert_allclose(plain, jitted, atol=1e-6)
    assert jnp.all(jnp.isfinite(plain))
