"""Pictures of a search: the trials, and the held-out front."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from vlbias.errors import ConfigError

if TYPE_CHECKING:
    from vlbias.search.front import Front
    from vlbias.search.halving import HalvingSettings

__all__ = ["plot_front", "plot_study"]

_LOOKS = {  # state -> (marker, colour, size)
    "stopped": ("x", "0.65", 22),
    "complete": ("o", "tab:blue", 28),
}


def plot_study(table: pd.DataFrame, settings: HalvingSettings, path: Path) -> Path:
    """All trials by the first two objectives (validation), stopped ones faint, the front joined by steps."""
    from matplotlib.figure import Figure

    if table.empty:
        raise ConfigError("The study has no trials to draw.")
    x, y = settings.objectives[:2]
    figure = Figure(figsize=(6.4, 4.6), layout="constrained")
    axes = figure.subplots()
    for state, (marker, colour, size) in _LOOKS.items():
        rows = table[table["state"] == state]
        if len(rows):
            axes.scatter(rows[x], rows[y], marker=marker, c=colour, s=size, label=f"{state} ({len(rows)})")
    front = table[table["on_front"]].sort_values(x)
    if len(front):
        # Marks as well as steps: a front of one trial has no step to see.
        axes.step(front[x], front[y], where="post", color="tab:red", lw=1)
        axes.scatter(
            front[x], front[y], s=70, facecolors="none", edgecolors="tab:red", label=f"front, validation ({len(front)})"
        )
        for number, row in front.iterrows():
            axes.annotate(str(number), (row[x], row[y]), xytext=(4, 4), textcoords="offset points", fontsize=8)
    if settings.max_error < 1 and x == "error":
        axes.axvline(settings.max_error, color="0.5", linestyle=":", label="error cap")
    axes.set_xlabel(_words(x))
    axes.set_ylabel(_words(y))
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=150)
    return path


def plot_front(front: Front, path: Path) -> Path:
    """Held-out means with intervals, an arrow from where validation had put each candidate."""
    from matplotlib.figure import Figure

    x, y = front.objectives[:2]
    figure = Figure(figsize=(6.4, 4.6), layout="constrained")
    axes = figure.subplots()
    for number, row in front.table.iterrows():
        axes.annotate(
            "",
            (row[x], row[y]),
            (row[f"val_{x}"], row[f"val_{y}"]),
            arrowprops={"arrowstyle": "->", "color": "0.7"},
        )
        error = [[[row[name] - row[f"{name}_low"]], [row[f"{name}_high"] - row[name]]] for name in (x, y)]
        # What is probably dominated fades.
        strength = float(np.clip(1.0 - row["p_dominated"], 0.15, 1.0))
        axes.errorbar(
            row[x],
            row[y],
            xerr=np.maximum(error[0], 0),
            yerr=np.maximum(error[1], 0),
            fmt="o",
            color="tab:red",
            alpha=strength,
        )
        axes.annotate(str(number), (row[x], row[y]), xytext=(5, 5), textcoords="offset points", fontsize=8)
    # Arrow-only annotations do not widen the limits, so the validation points are drawn as well.
    axes.scatter(front.table[f"val_{x}"], front.table[f"val_{y}"], s=14, c="0.6", label="as validation saw it")
    axes.scatter([], [], c="tab:red", label=f"{front.split}, {front.refits} refits, {front.level:.0%} interval")
    axes.set_xlabel(_words(x))
    axes.set_ylabel(_words(y))
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=150)
    return path


def _words(name: str) -> str:
    return name.replace("_", " ")
