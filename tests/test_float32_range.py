"""Levels of noise at which float32 nearly overflows: exact results there, one line beyond."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import settings
from toys import GAUSSIAN, keys_of, make

import diffusion_jax as dj
from diffusion_jax import build
from diffusion_jax.core import schedules
from diffusion_jax.core.objective import Model, training_loss
from diffusion_jax.core.predictions import PREDICTIONS, denoiser, prediction
from diffusion_jax.core.process import reverse_process
from diffusion_jax.data.dataset import DataSpec
from diffusion_jax.samplers.grids import make_grid
from diffusion_jax.samplers.sample import sample

pytestmark = pytest.mark.usefixtures("hurried_compiler")

FAINT = schedules.log_snr_linear(400, 17, log_snr_min=-155.0)
T = jnp.array([0, 1, 100, 250, 300, 398, 399])


def losses(name, kind):
    """Every loss of a wrong network, one image at each of T, and its gradient."""
    meaning, scale = prediction(name, FAINT), jnp.full((), 0.7, kind)
    x0 = jnp.broadcast_to(jnp.linspace(-1.0, 1.0, 3, dtype=kind)[:, None], (len(T), 3, 1))
    eps = jax.random.normal(jax.random.key(0), x0.shape, jnp.float32).astype(kind)

    def of(loss, scale):
        learned = loss != "weighted"
        reverse = reverse_process(FAINT, "learned_range" if learned else "fixed_large")
        output = meaning.target(x0, eps, T) * scale + 0.1
        output = jnp.concatenate([output, 0.2 * jnp.cos(output)], -1) if learned else output
        model = Model(meaning, reverse, "simple", 17)
        each = training_loss(model, loss, lambda x, time: output, x0, T, eps)
        return each.sum(), each

    @jax.jit
    def everything(scale):
        names = ("weighted", "bound", "hybrid")
        return [jax.grad(of, argnums=1, has_aux=True)(name, scale) for name in names]

    return everything(scale)


@pytest.mark.parametrize("name", PREDICTIONS)
def test_losses_and_gradients_are_those_of_float64(name):
    ours = losses(name, jnp.float32)
    with jax.enable_x64(True):
        exact = losses(name, jnp.float64)
    for found, expected in zip(jax.tree.leaves(ours), jax.tree.leaves(exact), strict=True):
        np.testing.assert_allclose(found, expected, rtol=5e-3, atol=1e-12)


@pytest.mark.parametrize("method", ["ancestral", "edm", "dpmpp_3m", "predictor_corrector"])
def test_the_noise_samples_the_same_images_as_v(method):
    """Clipped or not. (Annealed Langevin dynamics itself diverges on so faint a signal.)"""
    grid, sampler = make_grid("uniform", FAINT, 100), make(method)

    def images(name, clip):
        def denoise_on(points):
            meaning = prediction(name, FAINT).on(points)

            def denoise(x, t):
                x0, eps, _ = GAUSSIAN(points)(x, t)
                return denoiser(lambda *seen: meaning.target(x0, eps, t), meaning, clip)(x, t)

            return denoise

        return sample(sampler, denoise_on, keys_of(5), (3, 1), grid)

    names = ("v", "eps")
    for v, eps in jax.jit(lambda: [[images(n, clip) for n in names] for clip in (False, True)])():
        np.testing.assert_allclose(eps, v, atol=1e-3)


def built(**changes):
    return build.diffusion(dj.config(settings(), **changes), DataSpec((8, 8, 1), 17, 0))


REFUSED = {
    "steep": (
        {"schedule": {"log_snr_min": -180.0}},
        r"prediction 'eps' does not determine x0 at step t = 18 in float32, where the log-SNR is "
        r"-170.1; use another prediction, such as 'v', or another schedule",
    ),
    "long": (
        {"schedule": {"name": "linear", "steps": 18_000}},
        r"'linear': prediction 'eps' does not determine x0 at step t = 17\d\d\d in float32",
    ),
    "loud": (
        {"schedule": {"name": "variance_exploding", "noise_max": 1e20}},
        r"config.schedule 'variance_exploding': the noise of step t = 18 is 6.95e\+18, whose "
        r"square does not fit float32; choose levels of noise from 1e-18 to 1e\+18",
    ),
    "silent": (
        {"schedule": {"log_snr_max": 90.0}},
        r"config.schedule 'log_snr': the noise of step t = 0 is 2.86e-20",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_levels_beyond_float32_are_refused_in_one_line(case):
    changes, message = REFUSED[case]
    with pytest.raises(dj.UserError, match=message) as refused:
        built(**changes)
    assert len(str(refused.value).splitlines()) == 1


def test_a_weight_beyond_float32_is_refused():
    config = dj.config(settings(), schedule={"log_snr_min": -90.0}, weight="truncated_snr")
    with pytest.raises(dj.UserError, match="'truncated_snr' is not finite at step t = 18 in float"):
        build.loss(config, build.diffusion(config, DataSpec((8, 8, 1), 17, 0)))


def test_nine_thousand_linear_steps_are_not_refused():
    assert built(schedule={"name": "linear", "steps": 9000}).schedule.log_snr[-1] < -90.0
