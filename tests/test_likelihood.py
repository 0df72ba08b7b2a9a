"""Likelihoods of a data set: the truth where it is known, whatever the batches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.core import schedules
from diffusion_jax.core.arrays import lookup
from diffusion_jax.core.predictions import Denoised
from diffusion_jax.core.process import reverse_process
from diffusion_jax.data.dataset import Dataset
from diffusion_jax.devices.sharding import shardings
from diffusion_jax.evaluation import likelihood, report
from diffusion_jax.evaluation.finished_batches import (
    FinishedBatches,
    fingerprint,
    measure_in_batches,
)

LEVELS = 5
SCHEDULE = schedules.log_snr_linear(400, LEVELS)
REVERSE = reverse_process(SCHEDULE, "fixed_large")
PROBABILITIES = np.array([0.1, 0.4, 0.2, 0.05, 0.25])
ENTROPY_BITS = float(-np.sum(PROBABILITIES * np.log2(PROBABILITIES)))


@pytest.fixture(scope="module")
def dataset():
    """Pixels drawn independently, each level as often as its probability says."""
    levels = np.repeat(np.arange(LEVELS), np.rint(PROBABILITIES * 6000).astype(int))
    levels = np.random.default_rng(0).permutation(levels).astype(np.uint8)
    return Dataset(levels.reshape(-1, 2, 2, 1), np.zeros(1500, np.int32), LEVELS, 0)


def exact(params, label):
    """E[x0 | x_t] by Bayes' rule over the levels."""
    values = 2.0 * jnp.arange(LEVELS) / (LEVELS - 1) - 1.0

    def denoise(x, t):
        signal, noise = lookup(SCHEDULE.signal, t, x), lookup(SCHEDULE.noise, t, x)
        log_q = -0.5 * jnp.square((x - signal * values) / noise)
        weights = jax.nn.softmax(jnp.log(params) + log_q)
        x0 = jnp.sum(weights * values, -1, keepdims=True)
        return Denoised(x0, (x - signal * x0) / noise)

    return denoise


class Silent:
    """Progress that nobody watches, but whose course is kept."""

    def __init__(self):
        self.heard = []

    def __call__(self, done):
        self.heard.append(done)

    def close(self):
        self.heard.append("closed")


def run(measure, dataset, folder, probabilities=PROBABILITIES, batch_size=1500, devices=1):
    layout = shardings(jax.devices()[:devices])
    params = jax.device_put(jnp.asarray(probabilities, jnp.float32), layout.replicated)
    batches = likelihood.batches(dataset, len(dataset.images), batch_size, layout)
    progress = Silent()
    return measure_in_batches(
        measure, params, batches, FinishedBatches(folder), progress
    ), progress.heard


@pytest.fixture(scope="module")
def measure():
    return likelihood.bound_measure(REVERSE, exact, LEVELS, every=1, seed=0)


@pytest.fixture(scope="module")
def bound(measure, dataset, tmp_path_factory):
    return run(measure, dataset, tmp_path_factory.mktemp("parts") / "bound")[0]


def total_bits(bound):
    return (bound["prior"] + bound["nats"].sum(0)) / 4 / np.log(2.0)


def test_the_exact_denoiser_reaches_the_entropy(bound):
    bits = total_bits(bound)
    error = 4.0 * bits.std() / np.sqrt(len(bits))
    # 400 steps cost about 0.03 bits; see the law of the gap in test_bound.
    assert -error < bits.mean() - ENTROPY_BITS < 0.05 + error


def test_a_wrong_model_pays_its_divergence(measure, bound, dataset, tmp_path):
    wrong = np.full(LEVELS, 1.0 / LEVELS)
    divergence = float(np.sum(PROBABILITIES * np.log2(PROBABILITIES / wrong)))
    paid = total_bits(run(measure, dataset, tmp_path / "p", wrong)[0]) - total_bits(bound)
    assert abs(paid.mean() - divergence) < 0.03


def test_trajectories_check_the_sum(bound, dataset, tmp_path):
    measure = likelihood.trajectory_measure(REVERSE, exact, LEVELS, seed=0)
    nats = run(measure, dataset, tmp_path / "p")[0]["nats"]
    difference = report.trajectory_check(bound, nats, 4)["total_minus_this"]
    assert abs(difference["mean"]) < 3.0 * difference["stderr"]


def test_batches_and_devices_change_nothing(measure, bound, dataset, tmp_path):
    part = Dataset(dataset.images[:30], dataset.labels[:30], LEVELS, 0)
    for name, options in {"a": {"batch_size": 7}, "b": {"batch_size": 8, "devices": 4}}.items():
        if options.get("devices", 1) > jax.device_count():
            continue
        ours, heard = run(measure, part, tmp_path / name, **options)
        for key, value in ours.items():
            np.testing.assert_allclose(value, bound[key][..., :30], rtol=2e-4, atol=1e-5)
        assert heard[-1] == "closed"
        assert np.all(np.diff(heard[:-1]) >= 0.0)


def test_finished_batches_are_read_back(measure, bound, dataset, tmp_path):
    """With the parts of a stopped evaluation at hand only what is missing is computed."""
    part = Dataset(dataset.images[:30], dataset.labels[:30], LEVELS, 0)
    whole, _ = run(measure, part, tmp_path / "p", batch_size=10)
    (tmp_path / "p" / "bound_0000010.npz").unlink()
    stored = tmp_path / "p" / "bound_0000020.npz"
    arrays = dict(np.load(stored))
    np.savez(stored, **{**arrays, "prior": arrays["prior"] + 1.0})
    again, _ = run(measure, part, tmp_path / "p", batch_size=10)
    np.testing.assert_array_equal(again["nats"], whole["nats"])
    np.testing.assert_array_equal(again["prior"][:20], whole["prior"][:20])
    np.testing.assert_array_equal(again["prior"][20:], whole["prior"][20:] + 1.0)


def test_other_parameters_data_or_settings_have_another_fingerprint():
    config, params, images = {"seed": 0}, {"w": jnp.ones(3)}, np.zeros((2, 2), np.uint8)
    own = fingerprint(config, params, images)
    assert own == fingerprint({"seed": 0}, {"w": np.ones(3, np.float32)}, images.copy())
    others = [
        fingerprint({"seed": 1}, params, images),
        fingerprint(config, {"w": jnp.ones(3).at[1].set(2.0)}, images),
        fingerprint(config, params, images + np.uint8(1)),
    ]
    assert len({own, *others}) == 4


def test_dequantised_data_cost_at_least_as_much(bound, dataset, tmp_path):
    """A density over bins bounds the likelihood of levels; ODE and bound agree for it."""
    part = Dataset(dataset.images[:200], dataset.labels[:200], LEVELS, 0)
    measure = likelihood.bound_measure(REVERSE, exact, LEVELS, every=1, seed=0, dequantised=True)
    continuous, _ = run(measure, part, tmp_path / "p", batch_size=200)
    difference = total_bits(continuous) - total_bits(bound)[:200]
    assert difference.mean() > 3.0 * difference.std() / np.sqrt(200)


def test_report_means_and_errors():
    bound = {
        "prior": np.array([1.0, 3.0]),
        "nats": np.array([[2.0, 2.0], [4.0, 8.0], [6.0, 6.0]]),
        "x0_mse": np.array([[0.1, 0.3], [0.5, 0.5], [1.0, 2.0]]),
        "eps_mse": np.zeros((3, 2)),
    }
    unit = 4 * np.log(2.0)
    bits = report.bound_terms(bound, 4)
    parts = [bits[key]["mean"] for key in ("prior", "diffusion", "reconstruction")]
    np.testing.assert_allclose(parts, np.array([2.0, 12.0, 2.0]) / unit)
    np.testing.assert_allclose(bits["total"]["mean"], 16.0 / unit)
    np.testing.assert_allclose(bits["total"]["stderr"], 3.0 / unit)
    # T = 4 in runs of 2: t = 0, then 1 and 2, then 3.
    rows = report.per_timestep(bound, 4, 2, 4)
    assert [(row["t"], row["steps"]) for row in rows] == [(0, 1), (1, 2), (3, 1)]
    np.testing.assert_allclose([row["nats"] for row in rows], [2.0, 3.0, 6.0])
    np.testing.assert_allclose([row["rate"] * unit for row in rows], [14.0, 9.5, 2.0])
    np.testing.assert_allclose(rows[1]["distortion"], 127.5 * np.sqrt(0.5))


def test_one_image_has_no_error():
    assert report.mean_and_error(np.array([2.0])) == {"mean": 2.0, "stderr": None}
