"""Certificates: every known fault is named, and no shipped recipe is alarmed."""

import subprocess
import sys
from pathlib import Path

import pytest
from tiny import ROOT, settings

from diffusion_jax.certification.certificate import PARTS, line
from diffusion_jax.certification.law import FAILS, WARNS
from diffusion_jax.certification.subject import subject
from diffusion_jax.configuration.plugins import load_plugins
from diffusion_jax.configuration.tables import TABLES

PLUGINS = Path(__file__).parent / "data" / "faulty_plugins.py"


@pytest.fixture(scope="module", autouse=True)
def faulty():
    """The tables have the faulty entries in this file only."""
    before = {key: dict(table) for key, table in TABLES.items()}
    load_plugins([PLUGINS])
    yield
    for key, table in TABLES.items():
        table.clear()
        table.update(before[key])


LINEAR = {"schedule__name": "linear", "schedule__steps": 200, "schedule__beta_end": 0.1}
BOUND = {"variance": "fixed_small"}
FAULTS = {
    "schedule__name=float32_products": ("schedule float32_products", "float64's precision"),
    "weight=inverted_min_snr": ("weight inverted_min_snr", "does not grow with the SNR"),
    "variance=variance_as_std": ("variance variance_as_std", "above the forward variance"),
    "variance=earlier_posterior": ("variance earlier_posterior", "below the posterior variance"),
    "timesteps=without_first": ("timesteps without_first", "steps never drawn"),
    "loss=tanh_cdf": ("loss tanh_cdf", "it is the bound, term by term"),
    "loss=no_entropy": ("loss no_entropy", "it is the bound, term by term"),
    "loss=no_dequantisation": ("loss no_dequantisation", "it is the bound, term by term"),
    "sample__sampler=halved_second_difference": ("sampler halved_second_difference", "its order"),
    "sample__sampler=ddim_wrong_alpha": ("sampler ddim_wrong_alpha", "mean and variance"),
    "sample__sampler=noise_at_the_end": ("sampler noise_at_the_end", "the last row adds no noise"),
    "sample__sampler=churn_without_level": ("sampler churn_without_level", "mean and variance"),
    "sample__sampler=half_langevin_step": ("sampler half_langevin_step", "keep its variance"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_known_fault_is_named(fault):
    key, _, name = fault.partition("=")
    config = settings(**{**LINEAR, **BOUND, key: name})
    part = "loss" if key == "weight" else key.replace("__", ".")
    found = [law for law in PARTS[part](subject(config, 17)) if law.verdict in (FAILS, WARNS)]
    name, statement = FAULTS[fault]
    assert [law for law in found if law.subject == name and statement in law.statement]


SOUND = [
    {},
    {"loss": "bound", "variance": "learned_range"},
    {"loss": "hybrid", "variance": "learned_range", "timesteps": "importance"},
    {"prediction": "v", "weight": "min_snr", "sample__sampler": "dpmpp_2m"},
    {"prediction": "x0", "weight": "truncated_snr", "sample__sampler": "heun"},
    {"schedule__name": "variance_exploding", "prediction": "score", "weight": "snr"},
    {"schedule__name": "cosine", "sample__sampler": "predictor_corrector"},
]


@pytest.mark.parametrize("changes", SOUND, ids=str)
def test_what_is_sound_is_not_alarmed(changes):
    config = settings(**{**LINEAR, **BOUND, **changes})
    laws = [law for part in PARTS.values() for law in part(subject(config, 17))]
    assert [line(law) for law in laws if law.verdict in (FAILS, WARNS)] == []
    assert len(laws) > 20


def test_the_command_prints_writes_and_fails_with_code_6(tmp_path):
    out = tmp_path / "x.html"
    command = [sys.executable, "-m", "diffusion_jax", "certify", "--config=digits", "--levels=17"]
    wrong = ["--config.timesteps=without_first", f"--plugins={PLUGINS}", f"--out={out}"]
    done = subprocess.run([*command, *wrong], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stderr.count("\n")) == (6, 1)
    assert done.stderr.startswith("error: ")
    assert "timesteps without_first" in done.stderr
    assert "FAILS      timesteps without_first: every step is drawn" in done.stdout
    assert "<td>timesteps without_first<td>every step is drawn" in out.read_text()
    done = subprocess.run([*command, "--out=x.txt"], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, "expected a name ending in .html" in done.stderr) == (2, True)
