"""Laws of sampling, with the exact denoiser in place of a network."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toys import (
    COUNT,
    EXPLODING,
    GAUSSIAN,
    MEAN,
    MIXED,
    SCHEDULE,
    STOCHASTIC,
    VAR,
    keys_of,
    ks_distance,
    make,
)

from diffusion_jax.certification.sampler import gaussian_moments
from diffusion_jax.core import schedules
from diffusion_jax.core.moves import descent
from diffusion_jax.samplers.grids import make_grid
from diffusion_jax.samplers.sample import (
    SAMPLERS,
    prior_sample,
    rounded,
    sample,
    scan_rows,
    start,
)


@pytest.mark.parametrize("schedule", [SCHEDULE, EXPLODING], ids=["preserving", "exploding"])
@pytest.mark.parametrize(("name", "settings"), STOCHASTIC)
def test_stochastic_chains_follow_their_closed_form(name, settings, schedule):
    sampler, grid = make(name, **settings), schedule
    x = jax.jit(lambda: sample(sampler, GAUSSIAN, keys_of(COUNT), (1, 1, 1), grid))()
    mean, var = gaussian_moments(sampler.plan(grid, descent(grid)), grid.scale[-1])
    assert abs(float(x.mean()) - mean) < 4.0 * np.sqrt(var / COUNT)
    assert abs(float(x.var()) / var - 1.0) < 4.0 * np.sqrt(2.0 / COUNT)
    assert abs(mean - MEAN) < 0.01  # and the chain is one for these data
    assert abs(var / VAR - 1.0) < (0.12 if name == "langevin" else 0.02)


@pytest.mark.parametrize(("name", "settings"), STOCHASTIC)
def test_stochastic_chains_restore_a_mixture(name, settings):
    sampler, grid = make(name, **settings), SCHEDULE
    plan = sampler.plan(grid, descent(grid))
    denoise = MIXED(plan.points)

    @jax.jit
    def draw(std):
        table = plan.rows.table._replace(std=plan.rows.table.std * std)
        begun = start(sampler, prior_sample(grid, keys_of(COUNT), (2,)))
        rows = plan.rows._replace(table=table)
        return scan_rows(sampler, denoise, keys_of(COUNT), begun, rows).x

    assert ks_distance(draw(1.0)) < 0.02
    if name == "ancestral":
        assert ks_distance(draw(1.5)) > 0.02  # a wrong variance is seen


def slopes(name, counts=(40, 80, 160)):
    """How fast the end points on the mixture near those of 5000 steps, in float64."""
    with jax.enable_x64(True):
        x = jax.random.normal(jax.random.key(0), (200, 2), jnp.float64)

        def end(name, steps):
            sampler, grid = make(name), schedules.uniform_log_snr(SCHEDULE, steps)
            plan = sampler.plan(grid, descent(grid))
            begun = start(sampler, x)
            return jax.jit(
                lambda: scan_rows(sampler, MIXED(plan.points), keys_of(len(x)), begun, plan.rows).x
            )()

        truth = end("dpmpp_3m", 5000)
        errors = [float(jnp.linalg.norm(end(name, n) - truth, axis=-1).mean()) for n in counts]
    return -np.diff(np.log(errors)) / np.diff(np.log(counts))


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [("ddim", 0.9, 1.1), ("heun", 1.8, 2.2), ("dpmpp_2m", 1.8, 2.2), ("dpmpp_3m", 2.7, 3.5)],
)
def test_order_of_convergence(name, low, high):
    assert low < np.mean(slopes(name)) < high


@pytest.mark.parametrize(
    ("schedule", "low", "high"),
    [(SCHEDULE, 2.9, 4.0), (EXPLODING, 1.9, 2.1)],
    ids=["preserving", "exploding"],
)
def test_the_first_move_costs_the_third_order_on_exploding_schedules(schedule, low, high):
    """From 320 to 1280 steps; Gaussian data, whose flow scales x by its standard deviation."""

    def end_std(steps):
        grid = schedules.uniform_log_snr(schedule, steps + 1)
        plan = make("dpmpp_3m").plan(grid, descent(grid))
        return np.sqrt(gaussian_moments(plan, grid.scale[-1])[1])

    var = np.square(schedule.signal) * VAR + np.square(schedule.noise)
    flow = schedule.scale[-1] * np.sqrt(var[0] / var[-1])  # at the first level
    truth = flow * schedule.signal[0] * VAR / var[0]  # the last move takes its denoised mean
    errors = [abs(end_std(steps) - truth) for steps in (320, 640, 1280)]
    orders = -np.diff(np.log2(errors))
    assert np.all((low < orders) & (orders < high)), orders


def test_ddim_at_eta_one_is_ancestral_sampling():
    with jax.enable_x64(True):
        keys, shape = keys_of(50), (2, 2, 1)
        whole = [
            sample(sampler, GAUSSIAN, keys, shape, SCHEDULE)
            for sampler in (make("ddim", eta=1.0), make("ancestral"))
        ]
    np.testing.assert_allclose(*whole, atol=1e-9)
    plans = [
        sampler.plan(SCHEDULE, descent(SCHEDULE)).rows.table
        for sampler in (make("ddim", eta=1.0), make("ancestral"))
    ]
    for ours, theirs in zip(*(rounded(plan) for plan in plans), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_ddim_at_eta_zero_is_eulers_method_for_the_flow():
    """In x / signal and noise / signal."""
    grid = make_grid("uniform", SCHEDULE, 30)
    denoise, level = GAUSSIAN(grid), grid.noise / grid.signal
    with jax.enable_x64(True):
        x = prior_sample(grid, keys_of(5), (2, 2, 1))
        flow = x / grid.signal[-1]
        for t in reversed(range(1, 30)):
            eps = denoise(flow * grid.signal[t], jnp.full(5, t)).eps
            flow = flow + (level[t - 1] - level[t]) * eps
        sampler = make("ddim")
        plan = sampler.plan(grid, descent(grid))
        rows = jax.tree.map(lambda a: a[:-1], plan.rows)
        ours = scan_rows(sampler, denoise, keys_of(5), start(sampler, x), rows).x
        np.testing.assert_allclose(ours, flow * grid.signal[0], atol=1e-12)


def test_edm_without_churn_is_heun_and_one_call_a_row():
    grid = make_grid("karras", SCHEDULE, 12)
    plans = [
        make(name, **s).plan(grid, descent(grid))
        for name, s in (("edm", {"churn": 0.0}), ("heun", {}))
    ]
    for ours, theirs in zip(*(plan.rows.table for plan in plans), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert len(plans[0].rows.index) == 2 * 12 - 1


@pytest.mark.parametrize("rate", [0.1, 1.0])
def test_langevin_dynamics_reaches_its_stationary_variance(rate):
    """v / (1 - delta / (4 v)), on the one level of a grid."""
    t = 600
    grid = SCHEDULE.take([t])
    sampler = SAMPLERS["langevin"](langevin_steps=400, langevin_rate=rate)
    plan = sampler.plan(grid, descent(grid))
    rows = jax.tree.map(lambda a: a[:-1], plan.rows)  # without the last denoising
    begun = start(sampler, prior_sample(grid, keys_of(COUNT), (1,)))
    x = jax.jit(lambda: scan_rows(sampler, GAUSSIAN(grid), keys_of(COUNT), begun, rows).x)()
    v = float(grid.signal[0] ** 2 * VAR + grid.noise[0] ** 2)
    expected = v / (1.0 - rate * grid.noise[0] ** 2 / (4.0 * v))
    assert abs(float(x.var()) / expected - 1.0) < 4.0 * np.sqrt(2.0 / COUNT)
    assert abs(expected / v - 1.0) > 0.02
