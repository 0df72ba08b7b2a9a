"""What samples do not depend on: devices, batches, predictions, how the work is cut."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toys import EXPLODING, GAUSSIAN, MEAN, SCHEDULE, keys_of, make

from diffusion_jax.core.arrays import lookup
from diffusion_jax.core.moves import descent
from diffusion_jax.core.predictions import PREDICTIONS, denoiser, prediction
from diffusion_jax.devices.sharding import shardings
from diffusion_jax.samplers.grids import make_grid
from diffusion_jax.samplers.sample import SAMPLERS, prior_sample, rounded, sample, scan_rows, start
from diffusion_jax.truth import exact


@pytest.mark.parametrize(("output", "fixed"), [(-1.0, "fixed_small"), (1.0, "fixed_large")])
def test_a_learned_variance_at_its_ends_is_a_fixed_one(output, fixed):
    """On a respaced grid too: the interpolation is between the variances of the moves taken."""
    grid, keys = make_grid("uniform", SCHEDULE, 20), keys_of(3, 4)

    def learning(points):
        exactly = GAUSSIAN(points)
        return lambda x, t: exactly(x, t)._replace(var_output=jnp.full_like(x, output))

    learned = sample(make("ancestral", variance="learned_range"), learning, keys, (2, 2, 1), grid)
    plain = sample(make("ancestral", variance=fixed), GAUSSIAN, keys, (2, 2, 1), grid)
    np.testing.assert_allclose(learned, plain, atol=2e-6)


@pytest.mark.parametrize("schedule", [SCHEDULE, EXPLODING], ids=["preserving", "exploding"])
@pytest.mark.parametrize("name", SAMPLERS)
def test_an_image_is_a_function_of_its_key_however_the_work_is_cut(name, schedule):
    sampler, grid, shape = make(name), make_grid("log_snr", schedule, 12), (2, 2, 1)
    keys = keys_of(6, 2)
    whole = sample(sampler, GAUSSIAN, keys, shape, grid)
    plan = sampler.plan(grid, descent(grid))
    state = start(sampler, prior_sample(grid, keys[::-1], shape))
    for part in (slice(None, 5), slice(5, None)):
        rows = jax.tree.map(lambda a, part=part: a[part], plan.rows)
        state = scan_rows(sampler, GAUSSIAN(plan.points), keys[::-1], state, rows)
    np.testing.assert_array_equal(whole, state.x[::-1])
    assert jnp.all(jnp.isfinite(whole))
    assert len(np.unique(np.asarray(whole)[:, 0, 0, 0])) == 6


@pytest.mark.parametrize("name", [*SAMPLERS])
def test_the_level_of_every_row_is_the_level_of_its_x(name):
    """What wrappers rely on: from x = signal x0 + noise eps of one x0, x stays so in the mean."""
    sampler, grid = make(name), make_grid("karras", EXPLODING, 15)
    plan = sampler.plan(grid, descent(grid))
    pinned = partial(exact.denoiser, data=exact.gaussian(MEAN, 1e-12))
    state = start(sampler, jnp.full((1, 1), MEAN * grid.signal[-1]))
    still = plan.rows.table._replace(std=0.0 * plan.rows.table.std)

    def advance(state, row):
        state = sampler.step(pinned(plan.points), keys_of(1), state.x, row, state.carry)
        return state, state.x[0, 0]

    _, x = jax.lax.scan(advance, state, rounded(plan.rows._replace(table=still)))
    np.testing.assert_allclose(x, MEAN * plan.rows.signal, rtol=2e-5)
    assert plan.rows.noise[-1] == 0.0


@pytest.mark.parametrize("schedule", [SCHEDULE, EXPLODING], ids=["preserving", "exploding"])
@pytest.mark.parametrize("name", PREDICTIONS)
def test_every_prediction_gives_the_same_samples(name, schedule):
    """A network whose output means this, perfect but for rounding."""
    grid = make_grid("uniform", schedule, 20)
    whole = prediction(name, schedule)

    def perfect(seen, time):
        t = jnp.round(time).astype(int)
        x = lookup(schedule.scale, t, seen) * seen
        known = GAUSSIAN(schedule)(x, t)
        return whole.target(known.x0, known.eps, t)

    def network(levels):
        return denoiser(perfect, whole.on(levels), clip=False)

    drawn = [sample(make("ddim"), on, keys_of(4), (2, 2, 1), grid) for on in (network, GAUSSIAN)]
    np.testing.assert_allclose(*drawn, atol=1e-2 if name == "mean" else 2e-4)


def test_clipping_holds_the_image_and_takes_the_noise_anew():
    """x = signal x0 + noise eps stays true, so that a step from x lands where x0 says."""
    grid = make_grid("uniform", SCHEDULE, 10)
    clipped = denoiser(lambda x, time: 5.0 * x, prediction("eps", SCHEDULE).on(grid), clip=True)
    x, t = prior_sample(grid, keys_of(4), (2, 2, 1)), jnp.full(4, 7)
    x0, eps, _ = clipped(x, t)
    assert float(jnp.abs(x0).max()) == 1.0
    np.testing.assert_allclose(grid.signal[7] * x0 + grid.noise[7] * eps, x, atol=1e-6)
    images = sample(make("ddim"), lambda levels: clipped, keys_of(4), (2, 2, 1), grid)
    assert float(jnp.abs(images).max()) <= 1.0


@pytest.mark.parametrize("name", ["ancestral", "heun", "dpmpp_3m"])
def test_pmapped_and_sharded_images_are_those_of_one_device(name):
    grid, keys = make_grid("karras", SCHEDULE, 8), keys_of(8)

    def draw(keys):
        return sample(make(name), GAUSSIAN, keys, (2, 2, 1), grid)

    alone = jax.jit(draw)(keys)
    assert jax.device_count() == 4
    mapped = jax.pmap(draw)(keys.reshape(4, 2)).reshape(alone.shape)
    split = shardings(jax.devices()).split
    sharded = jax.jit(draw, in_shardings=split, out_shardings=split)(keys)
    np.testing.assert_allclose(mapped, alone, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(sharded, alone, rtol=1e-5, atol=1e-5)
