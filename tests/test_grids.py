"""Laws of time grids."""

import numpy as np
import pytest
from toys import EXPLODING, SCHEDULE, make

from diffusion_jax.samplers.grids import GRIDS, make_grid


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
