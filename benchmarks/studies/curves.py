"""Tables and curves of error against network calls, one line a method.

Rows are dicts with `method`, `asked` and `calls`, the numbers of calls asked for and taken, and the
errors under their own names; a row may lack some. Beside NAME there may be NAME_stderr.
"""

from pathlib import Path
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure


class Panel(NamedTuple):
    """One error of some rows; `floor` is that of real data."""

    title: str
    rows: list[dict]
    key: str
    floor: float | None = None

    def lines(self) -> dict[str, list[dict]]:
        """The rows of each method that have this error."""
        methods = dict.fromkeys(row["method"] for row in self.rows)
        return {
            name: [row for row in self.rows if row["method"] == name and self.key in row]
            for name in methods
        }


def show(panel: Panel) -> None:
    """Print a table, the numbers of calls asked for across."""
    asked = sorted({row["asked"] for row in panel.rows})
    print(f"\n{panel.title}\n{'calls':20}" + "".join(f"{calls:>10}" for calls in asked))
    for name, rows in panel.lines().items():
        cells = {row["asked"]: f"{row[panel.key]:.3g}" for row in rows}
        if cells:
            print(f"{name:20}" + "".join(f"{cells.get(calls, ''):>10}" for calls in asked))


def draw(axes: Axes, panel: Panel) -> None:
    """Error against calls, both logarithmic; a method keeps its colour from panel to panel."""
    for i, (name, rows) in enumerate(panel.lines().items()):
        if rows:
            calls, errors = ([row[each] for row in rows] for each in ("calls", panel.key))
            bars = [row.get(f"{panel.key}_stderr", 0.0) for row in rows]
            axes.errorbar(calls, errors, bars, marker=".", color=f"C{i}", label=name)
    if panel.floor is not None:
        axes.axhline(panel.floor, color="black", linestyle="--", label="real data")
    axes.set(xscale="log", yscale="log", xlabel="network calls", title=panel.title)
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")


def report(path: Path | None, panels: list[Panel]) -> None:
    """Print the panels and, given a place, draw them side by side into one PNG."""
    for panel in panels:
        show(panel)
    if path is None:
        return
    figure = Figure(figsize=(6.4 * len(panels), 4.8), layout="constrained")
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        draw(axes, panel)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png", dpi=120)
