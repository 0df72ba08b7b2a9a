"""Parity with the schedulers of PyPI's diffusers, one step at a time: run `make parity`."""

from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.core import schedules
from diffusion_jax.core.arrays import lookup
from diffusion_jax.core.keys import fold, image_normal
from diffusion_jax.core.moves import descent
from diffusion_jax.core.predictions import Denoised, prediction
from diffusion_jax.samplers.base import Rows
from diffusion_jax.samplers.sample import SAMPLERS, rounded

jax.config.update("jax_disable_most_optimizations", True)  # many small programs, run once each

T = 1000
SHAPE = (3, 4, 4, 2)
NOISE = np.random.default_rng(0).standard_normal(SHAPE)
KEYS = jax.random.split(jax.random.key(0), SHAPE[0])
SCHEDULES = {"linear": schedules.linear(T), "cosine": schedules.cosine(T)}
TOLERANCE = {"float32": 1e-5, "float64": 1e-6}  # some peers round to float32 in between

# The sampler and its settings for each peer in peers.py.
OURS = {
    "ddpm_small": ("ancestral", {"variance": "fixed_small"}),
    "ddpm_large": ("ancestral", {"variance": "fixed_large"}),
    "ddim_0": ("ddim", {"eta": 0.0}),
    "ddim_half": ("ddim", {"eta": 0.5}),
    "ddim_1": ("ddim", {"eta": 1.0}),
    "euler": ("ddim", {"eta": 0.0}),
    "heun": ("heun", {}),
    "2m": ("dpmpp_2m", {}),
    "sde": ("dpmpp_sde", {}),
}


class Case(NamedTuple):
    """One peer on one grid; its string names its arrays in the files."""

    schedule: str
    precision: str
    steps: int
    peer: str

    def __str__(self):
        return "/".join(map(str, self))


CASES = [
    Case(schedule, precision, steps, peer)
    for schedule in SCHEDULES
    for peer in OURS
    for precision, steps in [("float64", 10), ("float32", 10), ("float32", 25), ("float32", T)]
    if steps < T or peer.startswith(("ddpm", "ddim"))
]


@cache
def planned(case: Case):
    """Our sampler and its plan on the grid of trailing spacing."""
    name, settings = OURS[case.peer]
    sampler, stride = SAMPLERS[name](**settings), T // case.steps
    grid = SCHEDULES[case.schedule].take(np.arange(stride, T + 1, stride) - 1)
    return sampler, sampler.plan(grid, descent(grid))


def own_keys(index):
    """The keys of one row, as the scan over all rows makes them."""
    return fold(KEYS, index + 1)


@cache
def inputs(case: Case):
    """For every row an x on the row's level, and the noise that our sampler draws there."""
    _, plan = planned(case)
    rng = np.random.default_rng(1)
    shape = (len(plan.rows.index), *SHAPE)
    levels = plan.points.signal, plan.points.noise
    signal, noise = (level[plan.rows.table.t].reshape(-1, 1, 1, 1, 1) for level in levels)
    x = signal * rng.uniform(-1.0, 1.0, shape) + noise * rng.standard_normal(shape)
    with jax.enable_x64(case.precision == "float64"):
        drawn = jax.vmap(lambda i: image_normal(fold(own_keys(i), 0), SHAPE[1:]))(plan.rows.index)
    return x.astype(np.float32), np.asarray(drawn)


def denoiser(case: Case):
    """The network's output eps = n x + 0.3 s noise, n and s the level's noise and signal.

    As v = s eps - n x0 the same output is 0.3 noise. It serves where float32 cannot take eps:
    x0 = (x - n eps) / s magnifies the rounding by 1 / s, 2e4 at the noisy end of `cosine`.
    """
    points = planned(case)[1].points
    meaning = "v" if case[:2] == ("cosine", "float32") else "eps"
    of = prediction(meaning, points)

    def denoise(x, t):
        y = 0.3 * jnp.asarray(NOISE, x.dtype)
        if meaning == "eps":
            y = lookup(points.noise, t, x) * x + lookup(points.signal, t, x) * y
        return Denoised(of.to_x0(y, x, t), of.to_eps(y, x, t))

    return denoise


def steps_of(case: Case, rows: Rows):
    """x after each row, every row from its own given x, while the method's memory runs on."""
    sampler, denoise = planned(case)[0], denoiser(case)

    def advance(carry, given):
        x, row = given
        stepped = sampler.step(denoise, own_keys(row.index), x, row, carry)
        return stepped.carry, stepped.x

    with jax.enable_x64(case.precision == "float64"):
        x = jnp.asarray(inputs(case)[0], case.precision)
        return np.asarray(jax.lax.scan(advance, sampler.init(x[0]), (x, rounded(rows)))[1])


def deviation(ours, theirs):
    """The largest difference relative to max(1, |x|)."""
    return np.max(np.abs(ours - theirs) / np.maximum(1.0, np.abs(theirs)))


def betas(schedule):
    """The forward variances of the training steps."""
    alpha_bar = np.square(schedule.signal)
    return 1.0 - alpha_bar / np.append(1.0, alpha_bar[:-1])


@pytest.fixture(scope="module")
def theirs(run_peer, tmp_path_factory):
    """What peers.py answers to all cases, in one run of it."""
    folder = tmp_path_factory.mktemp("parity")
    given: dict[str, Any] = {"noise": NOISE}
    given |= {f"{name}/betas": betas(schedule) for name, schedule in SCHEDULES.items()}
    for case in CASES:
        given[f"{case}/x"], given[f"{case}/noise"] = inputs(case)
    np.savez(folder / "given.npz", **given)
    run_peer("peers.py", folder / "given.npz", folder / "steps.npz")
    return np.load(folder / "steps.npz")


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_step_is_theirs(case, theirs):
    _, plan = planned(case)
    np.testing.assert_allclose(plan.points.time[plan.rows.table.t], theirs[f"{case}/t"], rtol=1e-9)
    after = theirs[f"{case}/x"]
    assert deviation(steps_of(case, plan.rows), after) < TOLERANCE[case.precision]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_schedules_are_theirs(schedule, theirs):
    """Theirs in float32, before ours in float64 took their place."""
    np.testing.assert_allclose(theirs[f"{schedule}/betas"], betas(SCHEDULES[schedule]), rtol=1e-6)


@pytest.mark.parametrize(
    ("peer", "coefficient"),
    [
        ("ddpm_small", "xt_weight"),
        ("ddpm_large", "std"),
        ("ddim_half", "std"),
        ("ddim_1", "x0_weights"),
        ("euler", "xt_weight"),
        ("heun", "last_weight"),
        ("2m", "x0_weights"),
        ("sde", "std"),
    ],
)
def test_a_wrong_coefficient_is_seen(peer, coefficient, theirs):
    case = Case("linear", "float32", 10, peer)
    rows = planned(case)[1].rows
    wrong = getattr(rows.table, coefficient) * (1.0 + 1e-4)
    rows = rows._replace(table=rows.table._replace(**{coefficient: wrong}))
    assert deviation(steps_of(case, rows), theirs[f"{case}/x"]) > TOLERANCE["float32"]
