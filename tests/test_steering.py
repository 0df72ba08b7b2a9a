"""Laws of guidance, measurements, resampling and inversion, with exact denoisers."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toys import COUNT, GAUSSIAN, MEAN, MIXED, MIXTURE, SCHEDULE, VAR, keys_of, make

from diffusion_jax.core import schedules
from diffusion_jax.core.moves import descent
from diffusion_jax.core.predictions import denoiser, prediction
from diffusion_jax.samplers import inversion
from diffusion_jax.samplers.guidance import classifier_free, gradient_guided
from diffusion_jax.samplers.measurement import downsampled, masked, measured, resampled
from diffusion_jax.samplers.sample import SAMPLERS, sample
from diffusion_jax.truth import exact

COARSE = schedules.uniform_log_snr(SCHEDULE, 100)
COV = np.array([[0.16, 0.1], [0.1, 0.16]])
CORRELATED = partial(exact.denoiser, data=exact.gaussian([0.2, -0.1], COV))


def classes_network(x, time, label):
    """Output 10 label + x, and a second half for the variance."""
    y = x + 10.0 * label.reshape(-1, 1, 1, 1)
    return jnp.concatenate([y, -y], axis=-1)


@pytest.mark.parametrize(("scale", "expected"), [(1.0, 3.0), (0.0, 5.0), (2.0, 1.0)])
def test_guidance_is_linear_between_class_and_none(scale, expected):
    x, label = jnp.ones((4, 2, 2, 1)), jnp.full(4, 3)
    time = jnp.array([0.0, 1.0, 2.0, 3.0])
    guided = classifier_free(classes_network, label, 5, scale, (1.0, 2.0))
    output = guided(x, time)[:, 0, 0]
    np.testing.assert_allclose(output[1:3, 0], 1.0 + 10.0 * expected, rtol=1e-6)
    np.testing.assert_allclose(output[[0, 3], 0], 31.0)  # outside of the interval
    np.testing.assert_allclose(output[:, 1], -31.0)  # the class's own variance


def test_both_halves_take_one_network_call():
    calls = []

    def network(x, time, label):
        calls.append((x.shape, time.shape, label.shape))
        return x

    classifier_free(network, jnp.zeros(3, int), 1, 2.0, (0.0, 1.0))(
        jnp.ones((3, 2, 2, 1)), jnp.ones(3)
    )
    assert calls == [((6, 2, 2, 1), (6,), (6,))]


def test_guided_samples_of_gaussian_classes():
    """Classes N(+-m, v), none N(0, v + m^2): scale 1 draws the class, scale 2 exaggerates it."""
    meaning, m, v = prediction("eps", COARSE), 0.5, 0.04

    def network(x, time, label):
        t = jnp.round(jnp.interp(time, COARSE.time, jnp.arange(100.0))).astype(int)
        told = [
            exact.denoiser(COARSE, exact.gaussian(mean, var))(x, t).eps
            for mean, var in ((-m, v), (m, v), (0.0, v + m * m))
        ]
        return jnp.select([label.reshape(-1, 1, 1, 1) == k for k in range(3)], told)

    label, mean = jnp.tile(jnp.arange(2), 2000), {}
    for scale in (1.0, 2.0):
        guided = classifier_free(network, label, 2, scale, (0.0, 1e9))
        x = jax.jit(
            lambda guided=guided: sample(
                make("ancestral"),
                lambda points: denoiser(guided, meaning, clip=False),
                keys_of(4000),
                (1, 1, 1),
                COARSE,
            )
        )()
        mean[scale] = [float(x[i::2].mean()) for i in range(2)]
    np.testing.assert_allclose(mean[1.0], [-m, m], atol=4.0 * np.sqrt(v / 2000))
    assert mean[2.0][0] < -m - 0.05
    assert mean[2.0][1] > m + 0.05


def test_gradient_guidance_tilts_a_gaussian_exactly():
    """log-likelihood c x0 turns N(mean, v) into N(mean + c v, v)."""
    c = 2.0

    def guided(points):
        return gradient_guided(GAUSSIAN(points), points, lambda x0: c * x0.sum(axis=(1, 2, 3)))

    def draw(on):
        return sample(make("ancestral"), on, keys_of(COUNT), (1, 1, 1), SCHEDULE)

    plain, tilted = jax.jit(lambda: (draw(GAUSSIAN), draw(guided)))()
    np.testing.assert_allclose(tilted - plain, c * VAR, rtol=5e-3)  # the same noises


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("project", [masked(np.eye(4)[..., None]), downsampled(2)])
def test_a_measurement_is_met_exactly_by_every_method(name, project):
    known = jax.random.uniform(jax.random.key(5), (4, 4, 1))
    sampler = measured(make(name), project, known)
    grid = COARSE.take(np.arange(4, 100, 5))
    x = sample(sampler, GAUSSIAN, keys_of(3), (4, 4, 1), grid)
    np.testing.assert_allclose(project(x), jnp.broadcast_to(project(known), x.shape), atol=1e-5)
    assert float(jnp.std(x - project(x), axis=0).mean()) > 0.01  # the rest is drawn


@pytest.mark.parametrize("project", [masked(np.eye(4)[..., None]), downsampled(2)])
def test_measurements_are_orthogonal_projections(project):
    x, y = jax.random.normal(jax.random.key(6), (2, 4, 4, 1))
    np.testing.assert_allclose(project(project(x)), project(x), atol=1e-6)
    np.testing.assert_allclose(jnp.vdot(x, project(y)), jnp.vdot(project(x), y), rtol=1e-5)


@pytest.mark.parametrize("name", ["ancestral", "edm", "predictor_corrector"])
def test_resampling_leaves_the_distribution_alone(name):
    sampler, grid = (
        resampled(make(name), jump=20, repeats=2),
        schedules.uniform_log_snr(SCHEDULE, 400),
    )
    x = jax.jit(lambda: sample(sampler, GAUSSIAN, keys_of(COUNT), (1, 1, 1), grid))()
    assert abs(float(x.mean()) - MEAN) < 0.01
    assert abs(float(x.var()) / VAR - 1.0) < 0.08


def test_resampling_takes_every_move_so_often_and_ends_on_the_data():
    for name, calls in (("ddim", 1), ("heun", 2), ("dpmpp_3m", 1)):
        plan = resampled(make(name), jump=7, repeats=3).plan(COARSE, descent(COARSE))
        rows = plan.rows
        assert len(rows.index) == calls * 300 - (calls - 1) * 3  # the last move has one call
        jumps = rows.table.std > 0.0
        assert jumps.sum() == 2 * 15  # twice back in each of 15 segments
        after = rows.noise[jumps] * rows.table.scale[jumps]
        back = np.sqrt(np.square(after) + np.square(rows.table.std[jumps]))
        starts = COARSE.noise[::-1][::7]
        np.testing.assert_allclose(back, np.repeat(starts, 2), rtol=1e-12)
        assert rows.noise[-1] == 0.0


def test_repainting_nears_the_conditional_distribution():
    """x_1 given x_0 of a correlated Gaussian: too wide at one go, right after many."""
    value = 0.8
    mean = -0.1 + COV[1, 0] / COV[0, 0] * (value - 0.2)
    errors = []
    for repeats in (1, 20):
        held = measured(make("ancestral"), masked([1.0, 0.0]), jnp.array([value, 0.0]))
        sampler = resampled(held, jump=1, repeats=repeats)
        x = jax.jit(lambda s=sampler: sample(s, CORRELATED, keys_of(4000), (2,), COARSE))()
        errors.append(abs(float(x[:, 1].mean()) - mean))
    assert errors[1] < 0.25 * errors[0]
    assert errors[1] < 0.03


@pytest.mark.parametrize("schedule", [SCHEDULE, schedules.variance_exploding(1000)])
def test_inversion_and_back_is_the_point(schedule):
    points = exact.sample(MIXTURE, jax.random.key(7), 500)
    errors = []
    for steps in (100, 200):
        grid = schedules.uniform_log_snr(schedule, steps)
        noise = inversion.encode(MIXED, grid, points)
        back = inversion.decode(MIXED, grid, noise)
        errors.append(float(jnp.sqrt(jnp.mean((back - points) ** 2))))
    assert errors[1] < 0.6 * errors[0]
    assert errors[1] < 0.01 * 2.0
    assert abs(float(noise.std()) / grid.scale[-1] - 1.0) < 0.1


def test_slerp_goes_along_the_sphere():
    a, b = jax.random.normal(jax.random.key(8), (2, 3, 8, 8, 1))
    ends = [inversion.slerp(a, b, jnp.full(3, w)) for w in (0.0, 1.0)]
    np.testing.assert_allclose(ends[0], a, atol=1e-5)
    np.testing.assert_allclose(ends[1], b, atol=1e-5)
    unit = [v / jnp.linalg.norm(v.reshape(3, -1), axis=1).reshape(3, 1, 1, 1) for v in (a, b)]
    middle = inversion.slerp(*unit, jnp.full(3, 0.3))
    np.testing.assert_allclose(jnp.linalg.norm(middle.reshape(3, -1), axis=1), 1.0, rtol=1e-5)
    np.testing.assert_allclose(inversion.slerp(a, a, jnp.full(3, 0.5)), a, rtol=1e-6)


def test_interpolation_starts_and_ends_at_the_images():
    a, b = exact.sample(MIXTURE, jax.random.key(9), 20).reshape(2, 10, 2)
    for weight, image in ((0.0, a), (1.0, b)):
        x = inversion.interpolate(MIXED, COARSE, a, b, jnp.full(10, weight))
        np.testing.assert_allclose(x, image, atol=0.1)
