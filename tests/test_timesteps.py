"""Laws of how t is drawn: unbiased, even, the same on any number of devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.core.timesteps import (
    MEMORY,
    TIMESTEPS,
    LossHistory,
    importance,
    probabilities,
    remember,
)

STEPS = 10
FLAT = ["stratified", "uniform"]


def draw(name, key, index, batch, steps):
    timesteps = TIMESTEPS[name](steps)
    return timesteps.draw(timesteps.init(), key, index, batch)


def uneven():
    """A memory in which losses differ a thousandfold."""
    square = jnp.square(jnp.logspace(-2.0, 1.0, STEPS))
    return LossHistory(square, jnp.full(STEPS, 50))


@pytest.mark.parametrize("name", TIMESTEPS)
def test_every_t_is_equally_likely_at_first(name):
    keys = jax.random.split(jax.random.key(0), 4000)
    t, weight = jax.vmap(lambda key: draw(name, key, jnp.arange(8), 8, STEPS))(keys)
    counts = np.stack([np.bincount(column, minlength=STEPS) for column in np.asarray(t).T])
    assert counts.shape == (8, STEPS)
    assert np.all(np.abs(counts - 400) < 5 * np.sqrt(400))
    np.testing.assert_allclose(weight, 1.0, rtol=1e-5)


@pytest.mark.parametrize("name", ["stratified", "importance"])
def test_the_batch_covers_the_range_evenly(name):
    t = np.sort(draw(name, jax.random.key(1), jnp.arange(128), 128, 1000).t)
    gaps = np.diff(np.append(t, t[0] + 1000))
    assert gaps.min() >= 7
    assert gaps.max() <= 8 + (name == "importance")


@pytest.mark.parametrize("name", TIMESTEPS)
def test_t_of_a_share_is_the_share_of_t(name):
    key, whole = jax.random.key(2), jnp.arange(16)
    together = draw(name, key, whole, 16, 1000).t
    shares = [draw(name, key, part, 16, 1000).t for part in jnp.split(whole, 4)]
    np.testing.assert_array_equal(together, jnp.concatenate(shares))


def test_stratified_t_is_the_papers_formula():
    """floor(T frac(u + i/batch)) with one u, so a resumed run draws the same again."""
    key, i = jax.random.key(8), np.arange(16)
    u = float(jax.random.uniform(key))
    t, _ = draw("stratified", key, jnp.asarray(i), 16, 1000)
    np.testing.assert_array_equal(t, np.floor(1000 * ((u + i / 16) % 1.0)))


def test_stratified_t_estimates_the_loss_with_less_variance():
    """The loss as a smooth function of t: same mean, a small part of the variance."""
    keys = jax.random.split(jax.random.key(3), 2000)

    def estimates(name):
        t = jax.vmap(lambda key: draw(name, key, jnp.arange(32), 32, 1000).t)(keys)
        return np.square(np.asarray(t) / 1000.0).mean(1)

    uniform, stratified = estimates("uniform"), estimates("stratified")
    error = 4.0 * uniform.std() / np.sqrt(len(keys))
    assert abs(uniform.mean() - stratified.mean()) < error
    assert stratified.var() < 0.05 * uniform.var()


def test_importance_is_unbiased_whatever_it_remembers():
    """The weighted mean is the uniform one: exactly over p, and over draws."""
    losses, p = jnp.arange(1.0, STEPS + 1.0) ** 2, probabilities(uneven())
    np.testing.assert_allclose(p.sum(), 1.0, rtol=1e-6)
    np.testing.assert_allclose(jnp.sum(p * losses / (STEPS * p)), losses.mean(), rtol=1e-6)
    timesteps = importance(STEPS)
    keys = jax.random.split(jax.random.key(4), 4000)
    t, weight = jax.vmap(lambda key: timesteps.draw(uneven(), key, jnp.arange(8), 8))(keys)
    np.testing.assert_allclose(weight, 1.0 / (STEPS * p[t]), rtol=1e-6)
    means = np.asarray(weight * losses[t]).mean(1)
    assert abs(means.mean() - losses.mean()) < 4.0 * means.std() / np.sqrt(len(keys))
    frequency = np.bincount(np.asarray(t).ravel(), minlength=STEPS) / t.size
    np.testing.assert_allclose(frequency, p, atol=5e-3)


def test_importance_lowers_the_variance_of_uneven_losses():
    """Where the history is right, weighted losses are nearly constant."""
    losses = jnp.sqrt(uneven().square)
    keys = jax.random.split(jax.random.key(5), 500)
    timesteps = importance(STEPS)
    t, weight = jax.vmap(lambda key: timesteps.draw(uneven(), key, jnp.arange(8), 8))(keys)
    spread = np.asarray(weight * losses[t]).mean(1).std()
    plain = jax.vmap(lambda key: draw("uniform", key, jnp.arange(8), 8, STEPS).t)(keys)
    assert spread < 0.02 * np.asarray(losses[plain]).mean(1).std()


def test_the_memory_is_uniform_until_every_step_is_known():
    history = importance(STEPS).init()
    for _ in range(MEMORY - 1):
        history = remember(history, jnp.arange(STEPS), jnp.arange(1.0, STEPS + 1.0))
    np.testing.assert_allclose(probabilities(history), 1.0 / STEPS, rtol=1e-6)
    history = remember(history, jnp.arange(STEPS), jnp.arange(1.0, STEPS + 1.0))
    p = probabilities(history)
    np.testing.assert_allclose(p[1:] / p[0], np.arange(2, STEPS + 1), rtol=2e-2)


def test_the_memory_follows_the_losses_and_forgets():
    history = uneven()
    for _ in range(60):
        history = remember(history, jnp.full(3, 4), jnp.full(3, 0.25))
    np.testing.assert_allclose(history.square[4], 0.0625, rtol=1e-4)
    others = jnp.arange(STEPS) != 4
    np.testing.assert_array_equal(history.square[others], uneven().square[others])


def test_the_memory_does_not_depend_on_the_order_of_the_images():
    t = jax.random.randint(jax.random.key(6), (64,), 0, STEPS)
    loss = jax.random.uniform(jax.random.key(7), (64,))
    forwards, backwards = remember(uneven(), t, loss), remember(uneven(), t[::-1], loss[::-1])
    np.testing.assert_allclose(forwards.square, backwards.square, rtol=1e-6)


def test_the_first_losses_are_averaged():
    history = importance(3).init()
    for loss in (1.0, 2.0, 3.0):
        history = remember(history, jnp.array([1]), jnp.array([loss]))
    np.testing.assert_allclose(history.square, [0.0, (1 + 4 + 9) / 3, 0.0], rtol=1e-6)
    np.testing.assert_array_equal(history.count, [0, 3, 0])


def test_new_losses_of_a_known_step_move_in_with_a_memory_of_ten():
    """A timestep with n new losses keeps 0.9^n of its old estimate and adds their mean square."""
    loss = jnp.array([0.5, 2.0, 1.0])
    history = remember(uneven(), jnp.array([4, 4, 4]), loss)
    expected = 0.9**3 * uneven().square[4] + (1.0 - 0.9**3) * jnp.square(loss).mean()
    np.testing.assert_allclose(history.square[4], expected, rtol=1e-5)
    np.testing.assert_array_equal(history.count, np.where(np.arange(STEPS) == 4, 53, 50))


def test_losses_are_averaged_up_to_the_tenth():
    """From the eleventh loss on, old losses are forgotten."""
    history = LossHistory(jnp.array([4.0, 4.0]), jnp.array([MEMORY - 1, MEMORY]))
    square, count = remember(history, jnp.arange(2), jnp.array([1.0, 2.0**0.5]))
    np.testing.assert_allclose(square, [0.9 * 4.0 + 0.1, 0.9 * 4.0 + 0.2], rtol=1e-6)
    several = remember(history._replace(count=jnp.array([6, 7])), jnp.array([0, 1] * 4), 1.0)
    np.testing.assert_allclose(several.square, [0.6 * 4.0 + 0.4, 0.9**4 * 3.0 + 1.0], rtol=1e-6)
    np.testing.assert_array_equal(count, [10, 11])


def test_the_last_ten_losses_of_every_step_are_kept():
    """Against a list per step, batch after batch, some with more than ten losses of one step."""
    timesteps, rng = TIMESTEPS["loss_second_moment"](STEPS), np.random.default_rng(0)
    history, known = timesteps.init(), [[] for _ in range(STEPS)]
    for _ in range(12):
        t, loss = rng.integers(0, STEPS, 40) % (rng.integers(STEPS) + 1), rng.random(40)
        history = timesteps.update(history, jnp.asarray(t), jnp.asarray(loss))
        for each, number in zip(t, loss, strict=True):
            known[each].append(number)
    for row, count, losses in zip(*history, known, strict=True):
        assert int(count) == len(losses)
        np.testing.assert_allclose(np.sort(row)[::-1][: len(losses)], sorted(losses[-10:])[::-1])
    t = jnp.tile(jnp.arange(STEPS), 10)
    history = timesteps.update(history, t, 1.0 + t)  # all known now: in proportion to 1 + t
    drawn, weight = timesteps.draw(history, jax.random.key(0), jnp.arange(64), 64)
    p = 0.999 * (1.0 + drawn) / 55.0 + 0.001 / STEPS
    np.testing.assert_allclose(weight, 1.0 / (STEPS * p), rtol=1e-5)


def test_counts_stay_small():
    """So that int32 never overflows: at most a hundred."""
    history = remember(LossHistory(jnp.ones(2), jnp.array([98, 100])), jnp.array([0, 1]), 1.0)
    np.testing.assert_array_equal(history.count, [99, 100])


def test_every_step_keeps_a_share_of_the_draws():
    """p = 0.999 size / sum + 0.001 / T: a step without loss is still drawn; no loss, no bias."""
    history = LossHistory(jnp.array([0.0, 1.0, 9.0, 16.0]), jnp.full(4, MEMORY))
    expected = 0.999 * np.array([0.0, 1.0, 3.0, 4.0]) / 8.0 + 0.001 / 4
    np.testing.assert_allclose(probabilities(history), expected, rtol=1e-5)
    silent = history._replace(square=jnp.zeros(4))
    np.testing.assert_allclose(probabilities(silent), 0.25, rtol=1e-6)
