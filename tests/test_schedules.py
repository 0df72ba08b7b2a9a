"""Laws of every schedule, and the printed numbers of the founding texts."""

import numpy as np
import pytest

from diffusion_jax.core import schedules
from diffusion_jax.core.bound import prior_nats
from diffusion_jax.core.gaussian import bits_per_dim
from diffusion_jax.core.moves import descent, moves, single_steps
from diffusion_jax.core.schedules import SCHEDULES

LEVELS = 256


def make(name, steps=1000):
    arguments = {"betas": [np.linspace(1e-4, 0.02, steps)], "log_snr": [steps, LEVELS]}
    return SCHEDULES[name](*arguments.get(name, [steps]))


@pytest.fixture(params=SCHEDULES)
def schedule(request):
    return make(request.param)


@pytest.fixture(params=sorted(set(SCHEDULES) - {"variance_exploding"}))
def preserving(request):
    return make(request.param)


def test_alpha_bar_falls_strictly(preserving):
    assert np.all(np.diff(preserving.log_snr) < 0.0)
    assert np.all(np.diff(np.square(preserving.signal)) < 0.0)


def test_noise_explodes_geometrically_on_an_unscaled_signal():
    schedule = schedules.variance_exploding(10, 0.01, 1.0)
    np.testing.assert_array_equal(schedule.signal, 1.0)
    ratio = schedule.noise[1:] / schedule.noise[:-1]
    np.testing.assert_allclose(ratio, 100.0 ** (1 / 9), rtol=1e-12)
    np.testing.assert_allclose(schedule.noise[[0, -1]], [0.01, 1.0], rtol=1e-12)
    with pytest.raises(ValueError, match="noise_min 2 must lie between 0 and noise_max 1"):
        schedules.variance_exploding(10, 2.0, 1.0)


@pytest.mark.parametrize("name", sorted(set(SCHEDULES) - {"betas"}))
def test_beta_grows_from_the_second_step(name):
    beta = single_steps(make(name)).forward_var
    assert np.all(np.diff(beta[1:]) >= -1e-12)


def test_data_of_unit_variance_keep_it(preserving):
    np.testing.assert_allclose(preserving.scale, 1.0)
    alpha = 1.0 - single_steps(preserving).forward_var
    np.testing.assert_allclose(np.cumprod(alpha), np.square(preserving.signal), rtol=1e-9)


def test_tables_agree_with_each_other(schedule):
    snr = np.square(schedule.signal / schedule.noise)
    np.testing.assert_allclose(np.log(snr), schedule.log_snr, rtol=1e-9, atol=1e-12)


def test_steps_add_up_to_the_marginals(schedule):
    """noise_t^2 = (signal_t / signal_s)^2 noise_s^2 + forward_var, s = t - 1."""
    scale = schedule.signal / np.append(1.0, schedule.signal[:-1])
    before = np.append(0.0, np.square(schedule.noise[:-1]))
    sum_of_both = np.square(scale) * before + single_steps(schedule).forward_var
    np.testing.assert_allclose(sum_of_both, np.square(schedule.noise), rtol=1e-9)


def test_the_slope_of_the_signal_is_the_paths_drift(schedule):
    """By differences along a fine grid of the same path."""
    log_snr = np.linspace(5.0, -5.0, 2001)
    fine = schedule.at_log_snr(log_snr)
    slope = np.gradient(np.log(fine.signal), log_snr)
    np.testing.assert_allclose(slope[1:-1], fine.path.drift(log_snr)[1:-1], atol=1e-5)


def test_moves_compose(schedule):
    """q(x_r | x_t, x0) through any s between equals the direct one in mean and variance."""
    r, s, t = [50], [300], [700]
    direct, first, second = (moves(schedule, *pair) for pair in ((t, r), (t, s), (s, r)))
    x0_weight = second.x0_weight + second.xt_weight * first.x0_weight
    xt_weight = second.xt_weight * first.xt_weight
    var = second.posterior_var + second.xt_weight**2 * first.posterior_var
    np.testing.assert_allclose(x0_weight, direct.x0_weight, rtol=1e-10)
    np.testing.assert_allclose(xt_weight, direct.xt_weight, rtol=1e-9)
    np.testing.assert_allclose(var, direct.posterior_var, rtol=1e-9)


def test_posterior_weights_restore_the_marginal_mean(schedule):
    row = single_steps(schedule)
    previous = np.append(1.0, schedule.signal[:-1])
    restored = row.x0_weight + row.xt_weight * schedule.signal
    np.testing.assert_allclose(restored, previous, rtol=1e-9)


def test_first_step_lands_on_the_data(schedule):
    row = single_steps(schedule)
    assert (row.x0_weight[0], row.xt_weight[0], row.posterior_var[0]) == (1.0, 0.0, 0.0)


def test_known_numbers_of_the_linear_schedule():
    """Computed in float64; the founding text's 0.0060 and 1e-4 are errata of these."""
    schedule = schedules.linear(1000, 1e-4, 0.01)
    row = single_steps(schedule)
    assert round(schedule.signal[-1] ** 2, 5) == 0.00630
    assert round(schedule.signal[-2] ** 2, 5) == 0.00637
    assert f"{row.x0_weight[-1]:.2e}" == "8.03e-04"
    assert round(row.posterior_var[-1], 4) == 0.0100
    assert (round(row.x0_weight[1], 3), round(row.xt_weight[1], 3)) == (0.524, 0.476)
    assert f"{row.posterior_var[1]:.2e}" == "5.24e-05"


def test_three_equal_steps_merge_into_one():
    schedule = schedules.from_betas([0.05, 0.05, 0.05])
    np.testing.assert_allclose(schedule.signal[-1] ** 2, 0.857375, rtol=1e-12)


def test_prior_cost_of_the_linear_schedule():
    x0 = np.full((1, 8, 8, 3), np.sqrt(1.0 / 3.0), np.float32)
    cost = float(bits_per_dim(prior_nats(schedules.linear(1000), x0), 192)[0])
    assert f"{cost:.1e}" == "9.7e-06"


@pytest.mark.parametrize(("levels", "expected"), [(256, 13.3), (17, 7.7)])
def test_log_snr_ends_fit_the_levels(levels, expected):
    schedule = schedules.log_snr_linear(1000, levels)
    assert round(schedule.log_snr[0], 1) == expected
    np.testing.assert_allclose(schedule.noise[0], 2.0 / (levels - 1) / 6.0, rtol=1e-12)
    assert schedule.log_snr[-1] == -10.0


@pytest.mark.parametrize("betas", [[], [0.1, 1.0], [0.0], [0.1, -0.2], [[0.1]]])
def test_impossible_betas_are_refused(betas):
    with pytest.raises(ValueError, match="betas must be"):
        schedules.from_betas(betas)


def test_reversed_ends_are_refused():
    with pytest.raises(ValueError, match="must exceed"):
        schedules.log_snr_linear(10, 17, log_snr_max=-11.0)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("steps", [2, 37])
def test_there_are_as_many_rows_as_steps(name, steps):
    schedule = make(name, steps)
    tables = (schedule.log_snr, schedule.signal, schedule.noise, schedule.scale, schedule.time)
    assert [len(table) for table in tables] == [schedule.steps] * 5 == [steps] * 5
    np.testing.assert_array_equal(schedule.time, np.arange(steps))


def test_cosine_is_the_papers_formula():
    """alpha_bar = cos^2((u + 0.008)/1.008 pi/2), from u = 1/T on over its value at 0."""
    schedule = schedules.cosine(40)
    f = np.cos((np.linspace(0.0, 1.0, 41) + 0.008) / 1.008 * np.pi / 2.0) ** 2
    np.testing.assert_allclose(schedule.signal[:-1] ** 2, f[1:-1] / f[0], rtol=1e-9)
    # The last beta would be 1; it is clipped to 0.999.
    np.testing.assert_allclose((schedule.signal[-1] / schedule.signal[-2]) ** 2, 1e-3, rtol=1e-9)


def test_sigmoid_is_the_papers_formula():
    schedule = schedules.sigmoid(40, -2.0, 3.0, 0.7)
    z = -2.0 + 5.0 * np.arange(1, 41) / 40
    low, high = (1.0 / (1.0 + np.exp(-end / 0.7)) for end in (-2.0, 3.0))
    expected = (high - 1.0 / (1.0 + np.exp(-z / 0.7))) / (high - low)
    np.testing.assert_allclose(schedule.signal[:-1] ** 2, expected[:-1], rtol=1e-9)
    np.testing.assert_allclose(schedule.signal[-1] ** 2, 1e-9, rtol=1e-9)  # clipped from 0


def test_ends_are_the_papers_by_default():
    beta = single_steps(schedules.linear(1000)).forward_var
    np.testing.assert_allclose(beta, np.linspace(1e-4, 0.02, 1000), rtol=1e-9)
    noise = schedules.variance_exploding(9).noise
    np.testing.assert_allclose(noise[[0, 4, 8]], [0.01, 10**-0.5, 10.0], rtol=1e-12)
    defaults, spelt = schedules.sigmoid(9), schedules.sigmoid(9, -3.0, 3.0, 1.0)
    np.testing.assert_array_equal(defaults.signal, spelt.signal)


def test_a_grid_is_even_in_log_snr_and_of_one_point_the_noisy_end(schedule):
    grid = schedules.uniform_log_snr(schedule, 5)
    first, last = schedule.log_snr[[0, -1]]
    np.testing.assert_allclose(grid.log_snr, np.linspace(first, last, 5), rtol=1e-12)
    np.testing.assert_allclose(grid.time[[0, -1]], [0.0, schedule.steps - 1.0])
    np.testing.assert_array_equal(schedules.uniform_log_snr(schedule, 1).log_snr, [last])


def test_a_grid_of_a_grid_keeps_the_training_times(schedule):
    """Times come from the training schedule, not from a coarse grid of it."""
    steps = np.array([0, 250, 999])
    coarse = schedule.take(steps)
    np.testing.assert_array_equal(coarse.time, steps)
    np.testing.assert_array_equal(coarse.noise, schedule.noise[steps])
    again = coarse.at_log_snr(schedule.log_snr)
    np.testing.assert_allclose(again.time, schedule.time, atol=1e-9)
    np.testing.assert_allclose(again.signal, schedule.signal, rtol=1e-9)


def test_ends_may_meet_only_where_betas_stay_constant():
    np.testing.assert_allclose(schedules.linear(3, 0.05, 0.05).signal[-1] ** 2, 0.857375)
    with pytest.raises(ValueError, match=r"beta_start 0.2 must not exceed beta_end 0.1"):
        schedules.linear(3, 0.2, 0.1)
    with pytest.raises(ValueError, match="must exceed"):
        schedules.log_snr_linear(10, 17, log_snr_max=-10.0)
    for noise_min, noise_max in ((1.0, 1.0), (0.0, 1.0)):
        with pytest.raises(ValueError, match="must lie between 0 and"):
            schedules.variance_exploding(10, noise_min, noise_max)


def test_a_sampler_walks_the_training_chain_backwards(schedule):
    down, up = descent(schedule), single_steps(schedule)
    np.testing.assert_array_equal(up.t, np.arange(1000))
    np.testing.assert_array_equal(up.s, np.arange(-1, 999))
    for table, reverse in zip(down, up, strict=True):
        np.testing.assert_array_equal(np.asarray(table)[..., ::-1], reverse)
    assert [up.end.signal[0], up.end.noise[0], up.end.log_snr[0]] == [1.0, 0.0, np.inf]
