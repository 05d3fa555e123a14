"""Curves of a simulation: one column per focal group, one row per metric, one line per fill and mode."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vlbias.errors import PlanError
from vlbias.simulate.statistics import PARITY

if TYPE_CHECKING:
    from vlbias.simulate.result import SimulationResult

__all__ = ["plot_curves"]


def plot_curves(result: SimulationResult, metrics: Sequence[str], path: Path) -> Path:
    """Mean over repeats with a band of two standard errors (repeats and test people together)."""
    from matplotlib.figure import Figure

    focal = [name for name in dict.fromkeys(result.plan.runs["focal"]) if name]
    if not focal:
        raise PlanError("A plan of given compositions has no curve to draw; read its table.")
    figure = Figure(figsize=(3.2 * len(focal) + 0.8, 2.6 * len(metrics) + 0.4), layout="constrained")
    grid = figure.subplots(len(metrics), len(focal), squeeze=False, sharex=True, sharey="row")
    for column, name in enumerate(focal):
        for row, metric in enumerate(metrics):
            axes = grid[row][column]
            for line, (fill, mode) in enumerate(_lines(result)):
                wanted = f"f1[{name}]" if metric == "own_f1" else metric
                shares, points, resampled = result.points(wanted, name, fill=fill, mode=mode)
                mean = points.mean(0)
                spread = (
                    np.sqrt(points.var(0, ddof=1) / len(points) + resampled.mean(1).var(0)) if len(points) > 1 else 0
                )
                colour = f"C{line}"
                label = fill if mode == "substitute" else f"{fill}, {mode}"
                axes.plot(shares, mean, marker="o", ms=3, color=colour, label=label)
                axes.fill_between(shares, mean - 2 * spread, mean + 2 * spread, color=colour, alpha=0.15, lw=0)
            if not any(np.isfinite(np.asarray(line.get_ydata(), dtype=float)).any() for line in axes.lines):
                axes.text(0.5, 0.5, "undefined: too few\ntest images", ha="center", transform=axes.transAxes)
            axes.axvline(1 / len(result.plan.groups), color="0.5", lw=0.8, ls=":", label="balance")
            if row == 0:
                axes.set_title(name)
            if row == len(metrics) - 1:
                axes.set_xlabel(f"share of {name} in training")
            if column == 0:
                words = metric.replace("_", " ").replace("f1", "F1")
                axes.set_ylabel(words if PARITY.get(metric, True) else f"{words}\n(lower is better)")
    grid[0][0].legend(fontsize=8)
    figure.savefig(path, dpi=150)
    return path


def _lines(result: SimulationResult) -> list[tuple[str, str]]:
    lines = []
    for fill in result.fills:
        for mode in result.plan.settings["modes"]:
            if mode != "control" or fill == result.fills[0]:
                lines.append((fill, mode))
    return lines
