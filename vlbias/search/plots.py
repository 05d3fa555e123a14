"""Pictures of a search: the trials, and the held-out front."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from vlbias.errors import ConfigError
from vlbias.files import new_file
from vlbias.shown import plain_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plot_front", "plot_study"]

_LOOKS = {  # state -> (marker, colour, size)
    "stopped": ("x", "0.65", 22),
    "complete": ("o", "tab:blue", 28),
}


@plain_text()
def plot_study(table: pd.DataFrame, objectives: Sequence[str], max_error: float, path: Path) -> Path:
    """All trials by the first two objectives (validation), stopped ones faint, the front joined by steps.

    Args:
        table: of :meth:`vlbias.search.Study.table`.
        objectives: names; the first two are drawn.
        max_error: drawn as a line where it is below 1.
        path: the file; its ending chooses the format.

    Raises:
        ConfigError: the table is empty.
    """
    if table.empty:
        raise ConfigError("The study has no trials to draw.")
    x, y = objectives[:2]
    figure, axes = _axes(x, y)
    for state, (marker, colour, size) in _LOOKS.items():
        rows = table[table["state"] == state]
        if len(rows):
            axes.scatter(rows[x], rows[y], marker=marker, c=colour, s=size, label=f"{state} ({len(rows)})")
    front = table[table["on_front"]].sort_values(x)
    if len(front):
        # Marks as well as steps: a front of one trial has no step to see.
        axes.step(front[x], front[y], where="post", color="tab:red", lw=1)
        label = f"front, validation ({len(front)})"
        axes.scatter(front[x], front[y], s=70, facecolors="none", edgecolors="tab:red", label=label)
        for number, row in front.iterrows():
            axes.annotate(str(number), (row[x], row[y]), xytext=(4, 4), textcoords="offset points", fontsize=8)
    if max_error < 1 and x == "error":
        axes.axvline(max_error, color="0.5", linestyle=":", label="error cap")
    return _save(figure, axes, path)


@plain_text()
def plot_front(table: pd.DataFrame, objectives: Sequence[str], label: str, path: Path) -> Path:
    """Held-out means with intervals, an arrow from where validation had put each candidate.

    Args:
        table: of a :class:`vlbias.search.Front`.
        objectives: names; the first two are drawn.
        label: what the points are.
        path: the file; its ending chooses the format.
    """
    x, y = objectives[:2]
    figure, axes = _axes(x, y)
    for number, row in table.iterrows():
        start = (row[f"val_{x}"], row[f"val_{y}"])
        is_seen = bool(np.isfinite(start).all())  # by validation; baselines are not
        if is_seen:
            axes.annotate("", (row[x], row[y]), start, arrowprops={"arrowstyle": "->", "color": "0.7"})
        bars = [np.nan_to_num([[row[n] - row[f"{n}_low"]], [row[f"{n}_high"] - row[n]]]) for n in (x, y)]
        # What is probably dominated fades; where that is not known nothing does.
        strength = float(np.clip(1.0 - np.nan_to_num(row["p_dominated"]), 0.15, 1.0))
        axes.errorbar(row[x], row[y], xerr=bars[0], yerr=bars[1], fmt="o", color="tab:red", alpha=strength)
        name = str(number) if is_seen else row["label"].split()[0]
        axes.annotate(name, (row[x], row[y]), xytext=(5, 5), textcoords="offset points", fontsize=8)
    # Arrow-only annotations do not widen the limits, so the validation points are drawn as well.
    axes.scatter(table[f"val_{x}"], table[f"val_{y}"], s=14, c="0.6", label="as validation saw it")
    axes.scatter([], [], c="tab:red", label=label)
    return _save(figure, axes, path)


def _axes(x: str, y: str) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.6), layout="constrained")
    axes = figure.subplots()
    axes.set_xlabel(x.replace("_", " "))
    axes.set_ylabel(y.replace("_", " "))
    return figure, axes


def _save(figure: Figure, axes: Axes, path: Path) -> Path:
    axes.legend(fontsize=8)
    with new_file(path) as file:
        figure.savefig(file, dpi=150, format=path.suffix[1:].lower() or "png")
    return path
