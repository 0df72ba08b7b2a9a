"""Curves of a likelihood report: NumPy in, PNG out."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from diffusion_jax.files import replacing


def _save(path: Path, draw: Callable[[Axes], None]) -> None:
    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.subplots()
    draw(axes)
    axes.grid(alpha=0.3)
    with replacing(path, "wb") as file:
        figure.savefig(file, format="png", dpi=120)


def bits_per_t(path: Path, t: Sequence[int], bits: Sequence[float]) -> None:
    """Plot bits/dim of each term against t (0-based; t = 0 is the reconstruction)."""

    def draw(axes: Axes) -> None:
        axes.plot(t, bits, marker="." if len(t) < 60 else "")
        axes.set(xlabel="t", ylabel="bits/dim of one term", title="The bound, term by term")
        if min(bits) > 0.0:
            axes.set_yscale("log")
        axes.set_xscale("symlog", linthresh=1.0)
        axes.set_xlim(left=0.0)

    _save(path, draw)


def cumulative(path: Path, t: Sequence[int], bits: Sequence[float], prior: float) -> None:
    """Plot the bound summed up to t, and from t on, in bits/dim.

    Args:
        t: first step of each stratum.
        bits: all terms of each stratum.
        prior: bits/dim of the prior's term, which the sum from the far end starts with.
    """
    terms = np.asarray(bits)

    def draw(axes: Axes) -> None:
        axes.step(t, terms.cumsum(), where="post", label="terms up to t (from the data)")
        rest = prior + terms[::-1].cumsum()[::-1]
        axes.step(t, rest, where="post", label="terms from t on (from the noise)")
        axes.set(xlabel="t", ylabel="bits/dim", title="The bound, summed from either end")
        axes.legend()

    _save(path, draw)


def rate_distortion(path: Path, rate: Sequence[float], distortion: Sequence[float]) -> None:
    """Plot distortion of the predicted image against the bits sent (Ho et al. 2020, fig. 5)."""

    def draw(axes: Axes) -> None:
        axes.plot(rate, distortion, marker=".", markersize=3)
        axes.set(
            xlabel="rate (bits/dim)",
            ylabel="distortion (RMSE of x0, 0-255)",
            title="Progressive coding",
            ylim=(0.0, None),
        )

    _save(path, draw)


def loss_curve(path: Path, images: Sequence[int], losses: Sequence[float]) -> None:
    """Plot training losses against the number of images seen."""

    def draw(axes: Axes) -> None:
        axes.plot(images, losses, linewidth=1.0)
        axes.set(xlabel="images seen", ylabel="training loss", title="Training")
        if min(losses) > 0.0:
            axes.set_yscale("log")

    _save(path, draw)
