"""Plots as inline SVG that takes its colours and typeface from the page, so that it follows light, dark and print."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vlbias.shown import plain_text, printable

__all__ = ["Estimate", "Line", "Panel", "Spot", "counts_plot", "curves_plot", "estimates_plot", "front_plot"]

# Stand-ins that matplotlib draws with; each is replaced by a CSS variable of the page.
_COLORS = {
    "paper": "#010203",
    "ink": "#010204",
    "muted": "#010205",
    "rule": "#010206",
    "baseline": "#010207",
    "balanced": "#010208",
    "oracle": "#010209",
    "soft": "#01020a",
}
WIDTH_IN = 9.2
MARKERS = {"baseline": "o", "balanced": "o", "oracle": "D"}


@dataclass(frozen=True)
class Estimate:
    """A value with its interval and the single values behind it.

    Attributes:
        value: the mean.
        low, high: the interval, or ``None``.
        points: one value per seed.
        chance: what noise alone gives, or ``None``.
    """

    value: float
    low: float | None = None
    high: float | None = None
    points: tuple[float, ...] = ()
    chance: float | None = None


@dataclass(frozen=True)
class Line:
    """A curve with its band.

    Attributes:
        name: what it is, for its colour.
        x: ascending.
        value, low, high: at each x; a band that is NaN is not drawn.
    """

    name: str
    x: Sequence[float]
    value: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]


@dataclass(frozen=True)
class Panel:
    """One set of axes of a figure of curves."""

    title: str
    x_title: str
    lines: Sequence[Line]


@dataclass(frozen=True)
class Spot:
    """A candidate in a plane of two objectives, both better when low.

    Attributes:
        name: short, written beside it.
        x, y: on held-out data.
        before: where validation had put it.
        is_front: whether nobody is better in both by the means.
    """

    name: str
    x: Estimate
    y: Estimate
    before: tuple[float, float]
    is_front: bool


def color_of(name: str, position: int) -> str:
    """The page's colour of a training set: the three usual ones by name, others by position."""
    return name if name in MARKERS else ("baseline", "balanced", "oracle", "ink")[position % 4]


def _figure(width: float, height: float) -> tuple[Any, Any]:
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    FigureCanvasSVG(figure)
    return figure, figure.add_axes((0, 0, 1, 1))


def _svg(figure: Any, title: str) -> str:
    import matplotlib

    # Text stays text, so that it can be selected and read aloud; a fixed salt keeps the bytes the same.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "vlbias"}):
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    text = re.sub(r'<svg([^>]*?) width="[^"]*"', r"<svg\1", text, count=1)
    text = re.sub(r'<svg([^>]*?) height="[^"]*"', r"<svg\1", text, count=1)
    text = text.replace("<svg ", f'<svg role="img" aria-label="{_escape(title)}" ', 1)
    text = printable(text, keep="\n\t")
    text = re.sub(r"font: ([0-9.]+px) [^;\"]*", r"font-size: \1; font-family: var(--sans)", text)
    text = re.sub(
        r"font: (?:\w+ )?([0-9]+) ([0-9.]+px) [^;\"]*",
        r"font-weight: \1; font-size: \2; font-family: var(--sans)",
        text,
    )
    for name, stand_in in _COLORS.items():
        text = text.replace(stand_in, f"var(--{name})")
    # Ids of several plots on one page must not meet.
    salt = f"p{abs(hash_text(title + text)) % 10**8}"
    text = re.sub(r'id="([^"]+)"', rf'id="{salt}-\1"', text)
    text = re.sub(r'(xlink:href="#|url\(#)', rf"\g<1>{salt}-", text)
    return text


def hash_text(text: str) -> int:
    """A hash that is the same in every process."""
    import zlib

    return zlib.crc32(text.encode())


def _short(text: str, most: int = 16) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")


def _clean(axes: Any) -> None:
    for side in axes.spines.values():
        side.set_visible(False)
    axes.tick_params(length=0, labelsize=9, colors=_COLORS["muted"])
    axes.set_facecolor("none")


@plain_text()
def counts_plot(before: Mapping[str, Mapping[str, int]], after: Mapping[str, Mapping[str, int]], target: str) -> str:
    """Bars of cell counts, class by class: before on top, after below, each with its number.

    Args:
        before, after: class -> group -> count, with the same keys.
        target: name of the column, for the headings.
    """
    rows: list[tuple[float, str, str, int, int]] = []
    headings: list[tuple[float, str]] = []
    y = 0.0
    for label, groups in before.items():
        headings.append((y, f"{target} = {label}"))
        y += 0.95
        for group, count in groups.items():
            rows.append((y, label, group, count, after[label][group]))
            y += 1.0
        y += 0.55
    largest = max([1, *(max(count, later) for _, _, _, count, later in rows)])
    figure, axes = _figure(WIDTH_IN, 0.36 * y + 0.1)
    axes.set_position((0.13, 0.0, 0.8, 1.0))
    edge = -0.13 / 0.8  # left edge of the picture, in widths of the axes
    place = {"transform": axes.get_yaxis_transform(), "ha": "left", "va": "center"}
    for y_row, _, group, count, later in rows:
        axes.barh(y_row - 0.2, count, height=0.36, color=_COLORS["baseline"])
        axes.barh(y_row + 0.2, later, height=0.36, color=_COLORS["balanced"])
        axes.plot([0, 0], [y_row - 0.45, y_row + 0.45], color=_COLORS["ink"], linewidth=0.8)
        axes.text(edge, y_row, _short(group), fontsize=9.5, color=_COLORS["ink"], **place)
        for offset, n, color in ((-0.2, count, "muted"), (0.2, later, "ink")):
            x = n + 0.008 * largest
            axes.text(x, y_row + offset, f"{n:,}", ha="left", va="center", fontsize=8, color=_COLORS[color])
    for y_row, text in headings:
        axes.text(edge, y_row + 0.1, text, fontsize=10, fontweight="bold", color=_COLORS["ink"], **place)
    axes.set_ylim(y - 0.3, -0.6)
    axes.set_xlim(0, 1.06 * largest)
    _clean(axes)
    axes.set_xticks([])
    axes.set_yticks([])
    return _svg(figure, f"Faces in each cell of {target}, before and after; the table below has the same numbers")


@plain_text()
def estimates_plot(
    rows: Sequence[tuple[str, Mapping[str, Estimate]]], title: str, *, limits: tuple[float, float] | None = None
) -> str:
    """Dots with intervals, a row a metric, one dot a training set; small ticks are single seeds.

    Args:
        rows: (row title, training set -> estimate).
        title: what the plot shows, for readers that cannot see it.
        limits: of the axis; ``None`` for 0 to 1.
    """
    low, high = limits or (0.0, 1.0)
    num_sets = max(len(estimates) for _, estimates in rows)
    step = 0.24
    pitch = step * num_sets + 0.38
    height_in = 0.53 * pitch * len(rows) + 0.3
    figure, axes = _figure(WIDTH_IN, height_in)
    axes.set_position((0.27, 0.26 / height_in, 0.71, 1 - 0.3 / height_in))
    edge = -0.27 / 0.71
    for row, (text, estimates) in enumerate(rows):
        center = row * pitch
        if row:
            axes.axhline(center - pitch / 2, color=_COLORS["rule"], linewidth=0.6)
        axes.text(
            edge,
            center,
            text,
            transform=axes.get_yaxis_transform(),
            ha="left",
            va="center",
            fontsize=9.5,
            color=_COLORS["ink"],
        )
        for position, (name, estimate) in enumerate(estimates.items()):
            color = _COLORS[color_of(name, position)]
            y = center + step * (position - (len(estimates) - 1) / 2)
            if estimate.low is not None and estimate.high is not None:
                axes.plot(
                    [estimate.low, estimate.high],
                    [y, y],
                    color=color,
                    linewidth=1.6,
                    solid_capstyle="butt",
                    clip_on=False,
                )
            for point in estimate.points if len(estimate.points) > 1 else ():
                axes.plot([point, point], [y - 0.065, y + 0.065], color=color, linewidth=0.8, clip_on=False)
            hollow = color_of(name, position) == "baseline"
            axes.plot(
                estimate.value,
                y,
                MARKERS.get(name, "s"),
                markersize=6.2 if MARKERS.get(name) != "D" else 5.2,
                markerfacecolor=_COLORS["paper"] if hollow else color,
                markeredgecolor=color,
                markeredgewidth=1.5,
                clip_on=False,
            )
            if estimate.chance is not None:
                axes.plot(
                    [estimate.chance] * 2,
                    [y - 0.1, y + 0.1],
                    color=_COLORS["ink"],
                    linewidth=1,
                    linestyle=(0, (1, 1.2)),
                )
    axes.set_xlim(low, high)
    axes.set_ylim((len(rows) - 1) * pitch + pitch / 2, -pitch / 2)
    _clean(axes)
    axes.set_yticks([])
    axes.grid(axis="x", color=_COLORS["rule"], linewidth=0.6)
    axes.set_axisbelow(True)
    return _svg(figure, title)


@plain_text()
def curves_plot(panels: Sequence[Panel], title: str, *, columns: int = 3) -> str:
    """Curves with bands and a zero line, all panels on one scale.

    Args:
        panels: row by row.
        title: what the plot shows, for readers that cannot see it.
        columns: panels in a row.
    """
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    figure, whole = _figure(WIDTH_IN, 2.5 * rows)
    whole.set_axis_off()
    low, high = _range_of([line for panel in panels for line in panel.lines])
    for place, panel in enumerate(panels):
        row, column = divmod(place, columns)
        width = 1 / columns
        axes = figure.add_axes(
            (column * width + 0.055, 1 - (row + 1) / rows + 0.5 / (2.5 * rows), width - 0.085, 1.6 / (2.5 * rows))
        )
        axes.axhline(0, color=_COLORS["ink"], linewidth=0.9)
        for number, line in enumerate(panel.lines):
            color = _COLORS[color_of(line.name, number + 1)]
            axes.fill_between(line.x, line.low, line.high, color=color, alpha=0.18, linewidth=0)
            axes.plot(line.x, line.value, marker="o", markersize=4, linewidth=1.6, color=color)
        axes.set_ylim(low, high)
        _clean(axes)
        axes.grid(axis="y", color=_COLORS["rule"], linewidth=0.6)
        axes.set_axisbelow(True)
        axes.set_title(_short(panel.title, 34), fontsize=9.5, color=_COLORS["ink"], loc="left")
        axes.set_xlabel(_short(panel.x_title, 34), fontsize=9, color=_COLORS["muted"])
    return _svg(figure, title)


def _range_of(lines: Sequence[Line]) -> tuple[float, float]:
    """A scale that holds every curve with its band, and zero."""
    import numpy as np

    values = np.concatenate([np.ravel([0.0, *line.value, *line.low, *line.high]) for line in lines] or [np.zeros(1)])
    values = values[np.isfinite(values)]
    pad = 0.06 * max(float(np.ptp(values)), 0.02)
    return float(values.min()) - pad, float(values.max()) + pad


@plain_text()
def front_plot(spots: Sequence[Spot], x_title: str, y_title: str, title: str) -> str:
    """Candidates with their intervals, those on the front filled, and where validation had put them.

    Args:
        spots: the candidates.
        x_title, y_title: the objectives.
        title: what the plot shows, for readers that cannot see it.
    """
    figure, axes = _figure(WIDTH_IN, 4.6)
    axes.set_position((0.075, 0.11, 0.9, 0.86))
    for spot in spots:
        color = _COLORS["balanced" if spot.is_front else "baseline"]
        x, y = spot.x, spot.y
        axes.plot([spot.before[0], x.value], [spot.before[1], y.value], color=_COLORS["soft"], linewidth=1)
        axes.plot(*spot.before, "o", markersize=4, color=_COLORS["soft"])
        if x.low is not None and y.low is not None:
            axes.plot([x.low, x.high], [y.value] * 2, color=color, linewidth=1.3)
            axes.plot([x.value] * 2, [y.low, y.high], color=color, linewidth=1.3)
        face = color if spot.is_front else _COLORS["paper"]
        axes.plot(x.value, y.value, "o", markersize=7, markerfacecolor=face, markeredgecolor=color, markeredgewidth=1.5)
        axes.annotate(
            spot.name, (x.value, y.value), (6, 5), textcoords="offset points", fontsize=9, color=_COLORS["ink"]
        )
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    _clean(axes)
    axes.grid(color=_COLORS["rule"], linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set_xlabel(x_title, fontsize=9.5, color=_COLORS["ink"])
    axes.set_ylabel(y_title, fontsize=9.5, color=_COLORS["ink"])
    return _svg(figure, title)
