"""The bound, losses and whole runs on schedules whose last step is pure noise."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import settings
from toys import FIXED, GAUSSIAN, MEAN, MIXED, MIXTURE, VAR, keys_of

import diffusion_jax as dj
from diffusion_jax import build
from diffusion_jax.core import bound, flow, schedules
from diffusion_jax.core.estimators import trajectory_nats
from diffusion_jax.core.objective import WEIGHTS, Model, training_loss
from diffusion_jax.core.predictions import prediction
from diffusion_jax.core.process import reverse_process
from diffusion_jax.core.schedules import zero_terminal
from diffusion_jax.data.dataset import DataSpec
from diffusion_jax.run import likelihood
from diffusion_jax.run.progress import ImageProgress
from diffusion_jax.truth import exact

pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")

COARSE = zero_terminal(schedules.cosine(60))
SHORT = zero_terminal(schedules.cosine(20))


def finite(tree):
    return all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize("variance", FIXED)
def test_the_prior_costs_nothing_and_the_bound_lies_above_the_entropy(variance):
    count, data = 8000, exact.gaussian(MEAN, VAR)
    reverse, denoise = reverse_process(SHORT, variance), exact.denoiser(SHORT, data)
    x0 = exact.sample(data, jax.random.key(1), count)

    @jax.jit
    def estimates():
        whole = bound.bound_nats(reverse, denoise, None, keys_of(count, 2), x0)
        return whole, trajectory_nats(reverse, denoise, None, keys_of(count, 3), x0)

    whole, trajectories = estimates()
    np.testing.assert_array_equal(whole.prior, 0.0)
    excess = np.asarray(whole.total + exact.log_density(data, x0), np.float64)
    assert excess.mean() > 4.0 * excess.std() / np.sqrt(count)
    difference = np.asarray(trajectories - whole.total, np.float64)
    assert abs(difference.mean()) < 4.0 * difference.std() / np.sqrt(count)


def test_the_distance_of_means_is_not_computed_through_the_error_of_eps():
    reverse, x, t = reverse_process(SHORT, "fixed_small"), jnp.ones((2, 1)), jnp.array([3, 19])
    denoised = GAUSSIAN(SHORT)(x, t)
    assert finite([bound.diffusion_nats(reverse, denoised, x, x, t, e) for e in ("x0", "mean")])
    with pytest.raises(ValueError, match="pure noise has no error of eps"):
        bound.diffusion_nats(reverse, denoised, x, x, t, "eps")


@pytest.mark.parametrize("schedule", [COARSE, SHORT])
def test_the_odes_likelihood_reaches_pure_noise(schedule):
    start = exact.marginal(MIXTURE, schedule, 0)
    x, errors = exact.sample(start, jax.random.key(0), 200), []
    for steps in (40, 80):
        grid = schedules.uniform_log_snr(schedule, steps + 1)
        likelihood_of = partial(flow.flow_nats, grid, MIXED(grid), flow.exact_divergence)
        nats = jax.jit(likelihood_of)(x)[0]
        errors.append(np.abs(nats + exact.log_density(start, x)).mean())
    assert errors[1] < 0.4 * errors[0]
    assert errors[1] < 1e-2


@pytest.mark.parametrize(
    ("loss", "weight"),
    [*(("weighted", each) for each in WEIGHTS), ("bound", "simple"), ("hybrid", "bound")],
)
@pytest.mark.parametrize("name", ["x0", "v", "mean"])
def test_every_loss_and_gradient_is_finite(name, weight, loss):
    meaning, t = prediction(name, COARSE), jnp.array([0, 1, 30, 58, 59])
    variance = "fixed_large" if loss == "weighted" else "learned_range"
    model = Model(meaning, reverse_process(COARSE, variance), weight, 17)
    x0 = jnp.broadcast_to(jnp.linspace(-1.0, 1.0, 17)[:, None], (5, 17, 1))
    eps = jax.random.normal(jax.random.key(0), x0.shape)

    def total(scale):
        output = meaning.target(x0, eps, t) * scale + 0.1
        if loss != "weighted":
            output = jnp.concatenate([output, 0.2 * jnp.cos(output)], -1)
        each = training_loss(model, loss, lambda x, time: output, x0, t, eps)
        return each.sum(), each

    (_, each), gradient = jax.value_and_grad(total, has_aux=True)(0.7)
    assert finite((each, gradient))
    known = {"snr": 0.0, "min_snr": 0.0, "truncated_snr": 1.0}
    known |= {"bound": 0.5 * np.exp(COARSE.log_snr[-2]), "simple": meaning.d[-1] ** 2}
    np.testing.assert_allclose(WEIGHTS[weight](meaning)[-1], known[weight], rtol=1e-12)


def zero_config(**changes):
    return dj.config(settings(prediction="v", schedule__zero_terminal=True, **changes))


@pytest.mark.parametrize("name", ["eps", "score"])
def test_predictions_of_noise_are_refused(name):
    with pytest.raises(dj.UserError) as refused:
        dj.config(zero_config(), prediction=name)
    assert str(refused.value) == (
        f"config.prediction '{name}' says nothing about the image at the last step, which "
        "config.schedule.zero_terminal makes pure noise; set config.prediction to 'v' or 'x0'"
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "variance_exploding"}, "config.schedule: zero_terminal needs a variance-preserv"),
        ({"steps": 1}, "config.schedule: zero_terminal needs at least 2 steps"),
    ],
)
def test_other_schedules_are_refused(changes, message):
    config = dj.config(zero_config(), schedule=changes)
    with pytest.raises(dj.UserError, match=message):
        build.schedule(config, 17)


def test_the_key_is_off_by_default():
    plain, zero = (build.schedule(config, 17) for config in (settings(), zero_config()))
    np.testing.assert_array_equal(plain.signal, schedules.log_snr_linear(20, 17).signal)
    np.testing.assert_array_equal(zero.signal, zero_terminal(plain).signal)


def test_a_weight_that_diverges_is_refused(monkeypatch):
    monkeypatch.setitem(dj.WEIGHTS, "inverse", lambda meaning: np.exp(-meaning.schedule.log_snr))
    config = dj.config(zero_config(), weight="inverse")
    diffusion = build.diffusion(config, DataSpec((8, 8, 1), 17, 0))
    with pytest.raises(dj.UserError, match=r"config.weight 'inverse' is not finite at step t = 19"):
        build.loss(config, diffusion)


@pytest.mark.usefixtures("hurried_compiler")
def test_a_run_trains_samples_and_evaluates():
    images = np.random.default_rng(0).integers(0, 17, (8, 8, 8, 1), np.uint8)
    run = dj.train(zero_config(variance="learned_range", loss="hybrid"), images=images, levels=17)

    def drawn(run, steering=None):
        generate = run.drawing(2, steering).generate
        return next(generate(run.params, 0, range(2), lambda done: None)).images

    source = np.full((8, 8, 1), 0.7, np.float32)
    for sampler in ("ancestral", "heun"):
        one = run.configured(sample={"sampler": sampler, "steps": 7})
        plain = drawn(one)
        assert finite(plain)
        # Whatever the source, strength 1 starts from pure noise.
        np.testing.assert_array_equal(drawn(one, build.Steering(source=source)), plain)
    part = drawn(one, build.Steering(source=source, strength=0.5))
    assert finite(part)
    assert np.abs(part - plain).max() > 0.1
    data = likelihood.as_dataset(run, images, None)
    wanted = likelihood.measures(run, 1, 0, trajectory=True, ode=5)
    results = likelihood.evaluate(
        run, data, 2, 2, wanted, lambda name: ImageProgress(2, name, quiet=True)
    )
    assert finite(results)
    assert set(results) == {"bound", "bound_dequantised", "trajectory", "ode", "ode_half"}
    np.testing.assert_array_equal(results["bound"]["prior"], 0.0)
