"""The corrector's step beside the published one, whose size is a ratio of norms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toys import EXPLODING, SCHEDULE, VAR, make

from diffusion_jax.certification.sampler import gaussian_moments
from diffusion_jax.core import schedules
from diffusion_jax.core.moves import descent, single_steps
from diffusion_jax.truth import exact

LINEAR = schedules.linear(1000)
RATE = 0.1  # 4 r^2


def steps_of(schedule, data_var):
    """The corrector's delta at each t of the schedule, ascending."""
    sampler = make("predictor_corrector", langevin_rate=RATE, corrector_data_var=data_var)
    plan = sampler.plan(schedule, descent(schedule))
    return np.square(plan.rows.table.std[::2][::-1])


def published(schedule, t, var, dims=4000):
    """2 epsilon = 4 alpha (r |z| / |score|)^2 of one draw from N(0, var I) noised to t."""
    data, level = exact.gaussian(0.0, var), jnp.array([t])
    x = exact.marginal(data, schedule, t).var.item() ** 0.5 * jax.random.normal(
        jax.random.key(0), (1, dims, 1)
    )
    score = -exact.denoiser(schedule, data)(x, level).eps / schedule.noise[t]
    z = jax.random.normal(jax.random.key(1), x.shape)
    beta = single_steps(schedule).forward_var[t]
    alpha = 1.0 if schedule is EXPLODING else 1.0 - beta
    return alpha * RATE * float(jnp.sum(z**2) / jnp.sum(score**2))


@pytest.mark.parametrize("schedule", [LINEAR, EXPLODING], ids=["preserving", "exploding"])
def test_with_the_datas_variance_the_step_is_the_published_one(schedule):
    ours = steps_of(schedule, 0.25)
    for t in (0, 10, 100, 300, 600, 999):
        np.testing.assert_allclose(ours[t], published(schedule, t, 0.25), rtol=0.1)


def test_by_default_the_step_is_smaller_near_the_data():
    """By 1 + v SNR: 2500 times at t = 0 of the linear schedule, if the data have v = 0.25."""
    default = steps_of(LINEAR, 0.0)
    np.testing.assert_allclose(default, RATE * np.square(LINEAR.noise), rtol=1e-12)
    for t, factor in {0: 2500.0, 10: 115.0, 100: 3.1, 300: 1.16, 999: 1.0}.items():
        assert published(LINEAR, t, 0.25) / default[t] == pytest.approx(factor, rel=0.1)


def test_the_published_step_restores_gaussian_data():
    """In closed form, where the data do have that variance."""
    sampler = make("predictor_corrector", corrector_data_var=VAR)
    mean, var = gaussian_moments(sampler.plan(SCHEDULE, descent(SCHEDULE)), 1.0)
    assert abs(var / VAR - 1.0) < 0.1
    assert np.isfinite(mean)


def test_a_negative_variance_is_refused():
    with pytest.raises(ValueError, match="corrector_data_var must not be negative, got -1"):
        make("predictor_corrector", corrector_data_var=-1.0)
