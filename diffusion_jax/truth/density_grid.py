"""Ground truth in one dimension: densities on an evenly spaced grid, in float64 NumPy.

A grid is `x` of shape `[n]`; a density on it is `[n]`, its values at x, so that sum(p) width = 1.
A kernel is a matrix `[n, n]` whose column j is the density of the output given the input x_j, so
that one move is width * kernel @ density. Nothing wraps around: mass that leaves the grid is
lost. So x must reach beyond every density, and steps must be wider than the grid's width.
"""

import math
from collections.abc import Sequence

import numpy as np

from diffusion_jax.core.moves import single_steps
from diffusion_jax.core.schedules import from_betas


def grid_width(x: np.ndarray) -> float:
    """Return the distance between neighbouring points of the grid x `[n]`."""
    return float(x[-1] - x[0]) / (len(x) - 1)


def normal(x, mean, var) -> np.ndarray:
    """Compute the density exp(-(x - mean)^2 / (2 var)) / sqrt(2 pi var), broadcast."""
    return np.exp(-0.5 * np.square(x - mean) / var) / np.sqrt(2.0 * math.pi * var)


def moments(density: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compute mean and variance of a density `[n]`, or of each column of `[n, m]`.

    N(mean, var) is the Gaussian of least cross-entropy; a least-squares fit of the density is not.
    """
    mean = grid_width(x) * (x @ density)
    return mean, grid_width(x) * (np.square(x) @ density) - np.square(mean)


def kl_nats(p: np.ndarray, q: np.ndarray, width: float) -> np.ndarray:
    """Compute KL(p || q) = sum p log(p / q) width over axis 0; p below 1e-100 counts as 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return width * np.sum(np.where(p > 1e-100, p * (np.log(p) - np.log(q)), 0.0), axis=0)


def entropy_nats(p: np.ndarray, width: float) -> np.ndarray:
    """Compute the differential entropy -sum p log(p) width over the first axis."""
    return -kl_nats(p, np.ones_like(p), width)


def l1(p: np.ndarray, q: np.ndarray, width: float) -> np.ndarray:
    """Compute sum |p - q| width over axis 0: 0 for equal and 2 for disjoint densities."""
    return width * np.sum(np.abs(p - q), axis=0)


def score(density: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Compute the score d log p(x) / dx of a positive density `[n]`."""
    return np.gradient(np.log(density), x, edge_order=2)


def _check_resolved(x: np.ndarray, var: float) -> None:
    if math.sqrt(var) < grid_width(x):
        raise ValueError(f"a grid of width {grid_width(x):g} is too coarse for a variance {var:g}")


def scale(density: np.ndarray, x: np.ndarray, factor: float) -> np.ndarray:
    """Compute the density of factor * X, p(x / factor) / factor, by interpolation."""
    return np.interp(x / factor, x, density, left=0.0, right=0.0) / factor


def blur(density: np.ndarray, x: np.ndarray, var: float) -> np.ndarray:
    """Compute the density of X + sqrt(var) eps: the convolution of p with N(0, var)."""
    _check_resolved(x, var)
    return grid_width(x) * normal(x[:, None], x[None, :], var) @ density


def transition_kernel(x: np.ndarray, alpha: float) -> np.ndarray:
    """Compute q(x_t = x_i | x_{t-1} = x_j) = N(x_i; sqrt(alpha) x_j, 1 - alpha).

    (Ho et al. 2020, eq. 2.)
    """
    _check_resolved(x, 1.0 - alpha)
    return normal(x[:, None], math.sqrt(alpha) * x[None, :], 1.0 - alpha)


def forward_step(density: np.ndarray, x: np.ndarray, alpha: float) -> np.ndarray:
    """Compute q(x_t) from q(x_{t-1}), as blur(scale(density, sqrt(alpha)), 1 - alpha) does.

    q(x_t) = int q(x_t | x_{t-1}) q(x_{t-1}) dx_{t-1}, without the error of interpolation. With
    alpha_bar in place of alpha, it maps q(x_0) to q(x_t) (Sohl-Dickstein et al. 2015, section 2.1).
    """
    return grid_width(x) * transition_kernel(x, alpha) @ density


def marginals(density: np.ndarray, x: np.ndarray, alphas: Sequence[float]) -> np.ndarray:
    """Compute all q(x_t), `[T + 1, n]`, from q(x_0) `[n]` by T forward steps."""
    chain = [density]
    for alpha in alphas:
        chain.append(forward_step(chain[-1], x, alpha))
    return np.stack(chain)


def posterior_kernel(density: np.ndarray, x: np.ndarray, alpha: float) -> np.ndarray:
    """Compute q(x_{t-1} = x_i | x_t = x_j) `[n, n]` from q(x_{t-1}) `[n]`, by Bayes' rule.

    q(x_{t-1} | x_t) = q(x_t | x_{t-1}) q(x_{t-1}) / q(x_t), computed in logarithms. With q(x_0) as
    the density and alpha_bar in place of alpha, it is q(x_0 | x_t).
    """
    _check_resolved(x, 1.0 - alpha)
    with np.errstate(divide="ignore"):
        log_prior = np.log(density)[:, None]
    log_joint = log_prior - 0.5 * np.square(x - math.sqrt(alpha) * x[:, None]) / (1.0 - alpha)
    joint = np.exp(log_joint - np.max(log_joint, axis=0))
    return joint / (grid_width(x) * np.sum(joint, axis=0))


def gaussian_posterior(
    density: np.ndarray, x: np.ndarray, alpha: float
) -> tuple[np.ndarray, float]:
    """Compute mean `[n]` (one per x_t = x_j) and variance of the Gaussian near q(x_{t-1} | x_t).

    N(mu + s2 d log q_{t-1}(mu), s2) with mu = x_t / sqrt(alpha), s2 = (1 - alpha) / alpha, to first
    order in 1 - alpha (Sohl-Dickstein et al. 2015, section 2.2). The score is held constant where
    mu leaves the grid.
    """
    mu, var = x / math.sqrt(alpha), (1.0 - alpha) / alpha
    return mu + var * np.interp(mu, x, score(density, x)), var


def tweedie_mean(density: np.ndarray, x: np.ndarray, alpha: float) -> np.ndarray:
    """Compute E[x_{t-1} | x_t = x_j] `[n]` from q(x_{t-1}) `[n]`, exactly, by Tweedie's formula.

    E[x_{t-1} | x_t] = (x_t + (1 - alpha) d log q_t(x_t)) / sqrt(alpha)
    """
    noisier = forward_step(density, x, alpha)
    return (x + (1.0 - alpha) * score(noisier, x)) / math.sqrt(alpha)


def restore(
    end: np.ndarray, chain: np.ndarray, x: np.ndarray, alphas: Sequence[float]
) -> np.ndarray:
    """Compute all p(x_t), `[T + 1, n]`, from p(x_T) = end `[n]` and the posteriors of `chain`.

    p(x_{t-1}) = int q(x_{t-1} | x_t) p(x_t) dx_t, which is q(x_{t-1}) where p(x_t) = q(x_t).
    """
    restored = [end]
    for density, alpha in zip(chain[-2::-1], alphas[::-1], strict=True):
        restored.append(grid_width(x) * posterior_kernel(density, x, alpha) @ restored[-1])
    return np.stack(restored[::-1])


def fixed_point(density: np.ndarray, x: np.ndarray, alpha: float) -> np.ndarray:
    """Compute the density `[n]` that the posterior kernel of q(x_{t-1}) leaves unchanged.

    p = q_{t-1} q_t / N(0, 1), normalised: the forward step is reversible under N(0, 1), so the
    posterior is reversible under p (detailed balance). It tends to q_{t-1} as alpha falls to 0, and
    to q_{t-1}^2 / N(0, 1) as alpha rises to 1. On the whole line it exists only if the product is
    integrable: if the tails of q_{t-1} are wider than those of N(0, 2), there may be none.
    """
    product = density * forward_step(density, x, alpha) / normal(x, 0.0, 1.0)
    return product / (grid_width(x) * np.sum(product))


def second_eigenvalue(kernel: np.ndarray, width: float) -> float:
    """Return the second largest modulus of the eigenvalues of a kernel `[n, n]`; the largest is 1.

    The distance of repeated moves from the fixed point falls like its powers.
    """
    return float(np.sort(np.abs(np.linalg.eigvals(width * kernel)))[-2])


def posterior_given_x0(x, x0, xt, previous_alpha_bar: float, alpha: float) -> np.ndarray:
    """Compute q(x_{t-1} = x | x_t, x_0), the same for all data (Ho et al. 2020, eqs. 6 and 7).

    N(x; x0_weight x0 + xt_weight x_t, posterior_var) as in `moves.Moves`; x, x0 and xt are
    broadcast, and previous_alpha_bar is alpha_bar at t-1.
    """
    row = single_steps(from_betas([1.0 - previous_alpha_bar, 1.0 - alpha]))
    return normal(x, row.x0_weight[1] * x0 + row.xt_weight[1] * xt, row.posterior_var[1])


def conditioned(
    density: np.ndarray, x: np.ndarray, previous_alpha_bar: float, alpha: float, x0, xt
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Compute q(x_{t-1}), q(x_{t-1} | x0), q(x_{t-1} | x_t, x0), `[n]` each, if q(x_0) = density.

    The last two are Gaussians and depend on x0 alone, not on q(x_0) (Ho et al. 2020, eqs. 4 and 6).
    """
    given_x0 = normal(x, math.sqrt(previous_alpha_bar) * x0, 1.0 - previous_alpha_bar)
    given_both = posterior_given_x0(x, x0, xt, previous_alpha_bar, alpha)
    return forward_step(density, x, previous_alpha_bar), given_x0, given_both


def mutual_information_nats(
    density: np.ndarray, x: np.ndarray, previous_alpha_bar: float, alpha: float
) -> float:
    """Compute I(x_{t-1}; x_0 | x_t), q(x_0) = density: a cost that no p(x_{t-1} | x_t) avoids.

    E KL(q(x_{t-1} | x_t, x0) || p) = E KL(q(x_{t-1} | x_t) || p) + I, where
    I = H(x_{t-1} | x_t) - log(2 pi e posterior_var) / 2, the first term from the grid.
    """
    previous = forward_step(density, x, previous_alpha_bar)
    entropies = entropy_nats(posterior_kernel(previous, x, alpha), grid_width(x))
    row = single_steps(from_betas([1.0 - previous_alpha_bar, 1.0 - alpha]))
    known = 0.5 * math.log(2.0 * math.pi * math.e * row.posterior_var[1])
    return float(grid_width(x) * forward_step(previous, x, alpha) @ entropies) - known
