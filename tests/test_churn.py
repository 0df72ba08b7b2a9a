"""EDM's sampler beside the published algorithm, written out, with the same noises."""

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toys import COUNT, GAUSSIAN, MEAN, SCHEDULE, VAR, keys_of, make

from diffusion_jax.certification.sampler import gaussian_moments
from diffusion_jax.core.keys import fold, image_normal
from diffusion_jax.core.moves import descent
from diffusion_jax.samplers.sample import prior_sample, sample

GRID = SCHEDULE.take(np.arange(0, 700, 50))  # the schedule goes on beyond it: all may be raised
SIGMA = GRID.noise / GRID.signal
SETTINGS = [  # and how many of the 14 moves are raised
    ({}, 14),
    ({"churn": 2.0, "churn_noise": 1.007}, 14),
    ({"churn_min": float(SIGMA[3]), "churn_max": float(SIGMA[8])}, 6),
    ({"churn_first": False}, 13),
]


def algorithm_2(keys, churn=40.0, churn_noise=1.0, churn_min=0.0, churn_max=None, churn_first=True):
    """Karras et al. 2022, algorithm 2, in x / signal: x, how often it was raised, network calls."""
    largest = np.inf if churn_max is None else churn_max
    x, shape = prior_sample(GRID, keys, (2, 1)) / GRID.signal[-1], (2, 1)
    row, raised = 0, 0

    def denoised(x, sigma):
        """E[x0 | x0 + sigma eps] of N(MEAN, VAR)."""
        return (VAR * x + sigma**2 * MEAN) / (VAR + sigma**2)

    levels = [*SIGMA[::-1], 0.0]
    for i, (sigma, following) in enumerate(pairwise(levels)):
        gamma = min(churn / (len(levels) - 1), np.sqrt(2.0) - 1.0)
        gamma = gamma if churn_min <= sigma <= largest and (i or churn_first) else 0.0
        higher = sigma * (1.0 + gamma)
        if gamma:
            row += i == 0  # the first noise has a row of its own; later ones are added in a row
            eps = image_normal(fold(fold(keys, row), 0), shape)
            x = x + np.sqrt(higher**2 - sigma**2) * churn_noise * eps
            raised += 1
        slope = (x - denoised(x, higher)) / higher
        nearer = x + (following - higher) * slope
        row += 1
        if following:
            ahead = (nearer - denoised(nearer, following)) / following
            nearer = x + (following - higher) * 0.5 * (slope + ahead)
            row += 1
        x = nearer
    return x, raised, row


@pytest.mark.parametrize(("settings", "times"), SETTINGS)
def test_edm_is_the_published_algorithm(settings, times):
    with jax.enable_x64(True):
        keys, sampler = keys_of(4), make("edm", **settings)
        expected, raised, rows = algorithm_2(keys, **{"churn": 40.0, **settings})
        x = jax.jit(lambda: sample(sampler, GAUSSIAN, keys, (2, 1), GRID))()
        np.testing.assert_allclose(x, expected, rtol=1e-8, atol=1e-10)
    assert len(sampler.plan(GRID, descent(GRID)).rows.index) == rows
    assert raised == times


def test_from_the_noisiest_level_the_first_move_is_not_raised():
    """The network knows no level above it, so nothing is left to do."""
    first, without = (
        make("edm", churn_first=first).plan(SCHEDULE, descent(SCHEDULE)) for first in (True, False)
    )
    for ours, theirs in zip(*map(jax.tree.leaves, (first.rows, without.rows)), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_more_noise_widens_the_samples():
    """By as much as the closed form says."""
    var = [
        gaussian_moments(make("edm", churn_noise=factor).plan(SCHEDULE, descent(SCHEDULE)), 1.0)[1]
        for factor in (1.0, 1.007)
    ]
    assert abs(var[0] / VAR - 1.0) < 0.02
    assert var[1] > var[0]
    sampler = make("edm", churn_noise=1.007)
    x = jax.jit(lambda: sample(sampler, GAUSSIAN, keys_of(COUNT), (1,), SCHEDULE))()
    assert abs(float(jnp.var(x)) / var[1] - 1.0) < 4.0 * np.sqrt(2.0 / COUNT)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"churn": -1.0}, "churn must not be negative, got -1"),
        ({"churn_noise": 0.0}, "churn_noise must be above 0, got 0"),
        ({"churn_min": 2.0, "churn_max": 1.0}, "churn_min must lie between 0 and churn_max, got 2"),
        ({"churn_min": -1.0}, "churn_min must lie between 0 and churn_max, got -1"),
    ],
)
def test_arguments_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        make("edm", **settings)
