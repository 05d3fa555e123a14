"""How many images of each cell (group x label) a run takes, and the largest size that the dataset allows."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

__all__ = ["Cell", "Composition", "Stock", "compositions_of", "quotas"]

#: (group, label).
Cell: TypeAlias = tuple[str, str]


def quotas(total: int, shares: Mapping[str, float]) -> dict[str, int]:
    """Split ``total`` places by shares (any positive scale), Sainte-Lague: sums exactly, monotone in ``total``.

    Example:
        >>> quotas(10, {"a": 0.5, "b": 0.3, "c": 0.2})
        {'a': 5, 'b': 3, 'c': 2}
    """
    names = [name for name in shares if shares[name] > 0]
    counts = dict.fromkeys(shares, 0)
    if total <= 0 or not names:
        return counts
    weights = np.asarray([shares[name] for name in names], dtype=float)
    # Divisors 1, 3, 5, ...: start a little below each fair share, then hand out the rest one by one.
    floor = np.maximum(np.floor(weights / weights.sum() * total).astype(int) - 1, 0)
    for _ in range(total - int(floor.sum())):
        floor[int(np.argmax(weights / (2 * floor + 1)))] += 1
    return counts | dict(zip(names, floor.tolist(), strict=True))


@dataclass(frozen=True)
class Composition:
    """One point of a curve before its size is known.

    Attributes:
        name: of the run, without its repeat.
        mode: see :class:`vlbias.simulate.PlanSettings`.
        focal: the group whose share moves; empty for a composition that was given whole.
        share: of the focal group here; ``low``, ``high`` are the ends of the curve.
        others: weights of the other groups (of all groups for a whole composition).
    """

    name: str
    mode: str
    focal: str
    share: float
    low: float
    high: float
    others: Mapping[str, float]

    def counts(self, n: int) -> dict[str, int]:
        """Images per group for size ``n`` (of the largest share's run in "add" and "control")."""
        if not self.focal:
            return quotas(n, self.others)
        if self.mode == "substitute":
            own = round(self.share * n)
            return {**quotas(n - own, self.others), self.focal: own}
        base = n - round(self.high * n)
        own, least = (round(share / (1 - share) * base) for share in (self.share, self.low))
        if self.mode == "add":
            return {**quotas(base, self.others), self.focal: own}
        return {**quotas(base + own - least, self.others), self.focal: least}

    @property
    def place(self) -> str:
        """Where on which curve, for messages."""
        return f"at share {self.share:g} of '{self.focal}'" if self.focal else f"in {self.name}"


def compositions_of(
    focal: Sequence[str], shares: Sequence[float], modes: Sequence[str], weights: Mapping[str, float]
) -> list[Composition]:
    """The points of all curves: modes x focal groups x shares; ``weights`` are those of the groups among each other."""
    points = []
    for mode, name, share in itertools.product(modes, focal, shares):
        others = {group: weight for group, weight in weights.items() if group != name}
        points.append(Composition(f"{mode}|{name}|{share:g}", mode, name, share, min(shares), max(shares), others))
    return points


@dataclass(frozen=True)
class Stock:
    """What there is to draw from.

    Args:
        available: images of each cell.
        frequencies: label -> weight within every group; None leaves labels to the draw.
    """

    available: Mapping[Cell, int]
    frequencies: Mapping[str, float] | None

    def cells(self, by_group: Mapping[str, int]) -> dict[Cell, int]:
        """Images per cell. Without stratification a group is one cell, drawn through all its labels at once."""
        if self.frequencies is None:
            return {(group, ""): count for group, count in by_group.items()}
        return {
            (group, label): number
            for group, count in by_group.items()
            for label, number in quotas(count, self.frequencies).items()
        }

    def have(self, cell: Cell) -> int:
        """Images of a cell, or of a whole group."""
        group, label = cell
        return sum(n for (g, c), n in self.available.items() if g == group and label in ("", c))

    def shortage(self, points: Sequence[Composition], n: int) -> str:
        """What is missing for size ``n``, in words; empty if nothing is."""
        for point in points:
            for (group, label), needed in self.cells(point.counts(n)).items():
                have = self.have((group, label))
                if needed > have:
                    labelled = f" labelled '{label}'" if label else ""
                    return f"group '{group}' has {have} training images{labelled} and {point.place} needs {needed}"
        return ""

    def largest(self, points: Sequence[Composition]) -> int:
        """The largest feasible size by bisection: quotas never shrink as n grows, so feasibility has one edge."""
        low, high = 0, 2 * sum(self.available.values())
        while low < high:
            middle = (low + high + 1) // 2
            if self.shortage(points, middle):
                high = middle - 1
            else:
                low = middle
        return low
