"""Curves of a simulation: one column per focal group, one row per metric, one line per fill and mode."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vlbias.files import new_file
from vlbias.shown import plain_text
from vlbias.simulate.statistics import PARITY

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Curve", "plot_curves"]


@dataclass(frozen=True)
class Curve:
    """One line of a panel.

    Attributes:
        label: for the legend.
        shares: of the focal group (s,), ascending.
        mean: over repeats (s,).
        low, high: ends of the band (s,); NaN where there is one repeat.
        note: its slope, in words.
    """

    label: str
    shares: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    note: str


@plain_text()
def plot_curves(panels: Mapping[tuple[str, str], Sequence[Curve]], balance: float, path: Path) -> Path:
    """Draw curves with their bands and slopes.

    Args:
        panels: (metric, focal group) -> its curves, for every pair of both.
        balance: the share at which all groups are equal; marked.
        path: the file; its ending chooses the format.
    """
    from matplotlib.figure import Figure

    metrics, focal = (list(dict.fromkeys(names)) for names in zip(*panels, strict=True))
    figure = Figure(figsize=(3.2 * len(focal) + 0.8, 2.6 * len(metrics) + 0.4), layout="constrained")
    grid = figure.subplots(len(metrics), len(focal), squeeze=False, sharex=True, sharey="row")
    for (metric, name), curves in panels.items():
        axes = grid[metrics.index(metric)][focal.index(name)]
        _draw(axes, curves, balance)
        if metric == metrics[0]:
            axes.set_title(name)
        if metric == metrics[-1]:
            axes.set_xlabel(f"share of {name} in training")
        if name == focal[0]:
            words = metric.replace("_", " ").replace("f1", "F1")
            axes.set_ylabel(words if PARITY.get(metric, True) else f"{words}\n(lower is better)")
    grid[0][0].legend(fontsize=8)
    with new_file(path) as file:
        figure.savefig(file, dpi=150, format=path.suffix[1:].lower() or "png")
    return path


def _draw(axes: Axes, curves: Sequence[Curve], balance: float) -> None:
    for number, curve in enumerate(curves):
        colour = f"C{number}"
        axes.plot(curve.shares, curve.mean, marker="o", ms=3, color=colour, label=curve.label)
        axes.fill_between(curve.shares, curve.low, curve.high, color=colour, alpha=0.15, lw=0)
        place = 0.03 + 0.08 * number
        axes.text(0.03, place, curve.note, color=colour, fontsize=7, transform=axes.transAxes)
    if not any(np.isfinite(curve.mean).any() for curve in curves):
        axes.text(0.5, 0.5, "undefined: too few\ntest images", ha="center", transform=axes.transAxes)
    axes.axvline(balance, color="0.5", lw=0.8, ls=":", label="balance")
