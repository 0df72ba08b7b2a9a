"""Laws of sampling, with the exact denoiser in place of a network."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toys import (
    ARGUMENTS,
    COUNT,
    EXPLODING,
    FIXED,
    GAUSSIAN,
    MEAN,
    MIXED,
    MIXTURE,
    SCHEDULE,
    VAR,
    keys_of,
    make,
)

from diffusion_jax.core import exact, schedules
from diffusion_jax.core.moves import descent
from diffusion_jax.samplers.grids import GRIDS, make_grid
from diffusion_jax.samplers.sample import (
    SAMPLERS,
    prior_sample,
    rounded,
    sample,
    scan_rows,
    start,
)

STOCHASTIC = [
    *[("ancestral", {"variance": each}) for each in FIXED],
    ("ddim", {"eta": 0.5}),
    ("dpmpp_sde", {}),
    ("edm", {"churn": 40.0}),
    ("langevin", ARGUMENTS["langevin"]),
    ("predictor_corrector", ARGUMENTS["predictor_corrector"]),
]


def chain_moments(plan, prior_std):
    """Mean and variance of x after all rows on Gaussian data, in closed form, float64.

    The exact x0 is affine in x, so a row maps (x, x before, past x0s, 1) linearly, plus noise.
    """
    table, points = plan.rows.table, plan.points
    order = table.x0_weights.shape[1]
    size = 2 + order  # x, x before, x0 of 1 .. order - 1 rows ago, 1
    mean, cov = np.zeros(size), np.zeros((size, size))
    mean[-1], cov[0, 0] = 1.0, prior_std**2
    for i, t in enumerate(table.t):
        signal, noise = points.signal[t], points.noise[t]
        gain = signal * VAR / (signal**2 * VAR + noise**2)
        predicted = np.zeros(size)
        predicted[0], predicted[-1] = gain, MEAN * (1.0 - gain * signal)
        known = [predicted, *np.eye(size)[2 : 1 + order]]
        row = np.zeros((size, size))
        row[0] = sum(w * each for w, each in zip(table.x0_weights[i], known, strict=True))
        row[0, 0] += table.xt_weight[i]
        row[0, 1] += table.last_weight[i]
        row[1, 0] = row[-1, -1] = 1.0
        for k in range(order - 1):
            row[2 + k] = known[k]
        mean, cov = row @ mean, row @ cov @ row.T
        cov[0, 0] += table.std[i] ** 2
    return mean[0], cov[0, 0]


@pytest.mark.parametrize("schedule", [SCHEDULE, EXPLODING], ids=["preserving", "exploding"])
@pytest.mark.parametrize(("name", "settings"), STOCHASTIC)
def test_stochastic_chains_follow_their_closed_form(name, settings, schedule):
    sampler, grid = make(name, **settings), schedule
    x = jax.jit(lambda: sample(sampler, GAUSSIAN, keys_of(COUNT), (1, 1, 1), grid))()
    mean, var = chain_moments(sampler.plan(grid, descent(grid)), grid.scale[-1])
    assert abs(float(x.mean()) - mean) < 4.0 * np.sqrt(var / COUNT)
    assert abs(float(x.var()) / var - 1.0) < 4.0 * np.sqrt(2.0 / COUNT)
    assert abs(var / VAR - 1.0) < 0.25  # and the chain is one for these data


def ks_distance(x):
    """The largest Kolmogorov-Smirnov distance to the mixture over both axes."""
    data, worst = MIXTURE, 0.0
    for axis in range(2):
        points = np.sort(np.asarray(x)[:, axis].astype(np.float64))
        std = np.sqrt(np.einsum("kde,ke->kd", np.square(data.axes), data.var))[:, axis]
        z = (points[:, None] - data.mean[:, axis]) / (std * np.sqrt(2.0))
        erf = np.asarray(jax.scipy.special.erf(z))
        cdf = (0.5 * (1.0 + erf)) @ np.exp(data.log_weight)
        rank = np.arange(len(points) + 1) / len(points)
        worst = max(worst, np.abs(cdf - rank[1:]).max(), np.abs(cdf - rank[:-1]).max())
    return worst


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
@pytest.mark.parametrize("name", GRIDS)
def test_grids_reach_from_the_last_step_to_the_data(name, schedule):
    for steps in (1, 2, 7, 50, 999, 1000):
        grid = make_grid(name, schedule, steps)
        assert grid.steps == steps
        np.testing.assert_allclose(grid.log_snr[-1], schedule.log_snr[-1], rtol=1e-12)
        assert np.all(np.diff(grid.log_snr) < 0.0)
        assert np.all(np.diff(grid.time) > 0.0)
        if steps > 1:
            np.testing.assert_allclose(grid.log_snr[0], schedule.log_snr[0], rtol=1e-12)
        # Respaced marginals are the parent's, at whatever time they are.
        signal, noise = (
            np.interp(grid.time, schedule.time, each) for each in (schedule.signal, schedule.noise)
        )
        np.testing.assert_allclose(grid.signal, signal, rtol=2e-4)
        np.testing.assert_allclose(grid.noise, noise, rtol=2e-4)
    np.testing.assert_allclose(make_grid("quadratic", schedule, 1000).time, schedule.time)


@pytest.mark.parametrize("steps", [0, 1001])
def test_impossible_settings_are_refused(steps):
    with pytest.raises(ValueError, match=r"steps must lie in 1 \.\. 1000"):
        make_grid("uniform", SCHEDULE, steps)
    with pytest.raises(ValueError, match="eta must lie between 0 and 1"):
        make("ddim", eta=1.5)
