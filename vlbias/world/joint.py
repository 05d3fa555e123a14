"""Joint distributions of labels: planted associations and exact tables of counts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import TypedDict

import numpy as np

from vlbias.errors import ConfigError
from vlbias.world.attributes import (
    ATTRIBUTES,
    BEARD_RATE,
    CATEGORIES,
    LABELS,
    PERSON_LABELS,
    PICTURE_LABELS,
    label_of,
    label_position,
)

__all__ = ["Joint", "JointOptions"]

Bias = Mapping[tuple[str, str], float]
Cells = Mapping[tuple[str, ...], Mapping[tuple[object, ...], float]]
Draw = Callable[[str], np.ndarray]

# Default shares of the categories; hair length leans on gender.
_SHARES: dict[str, tuple[float, ...]] = {
    "hair_color": (0.35, 0.35, 0.2, 0.1),
    "eye_color": (0.5, 0.25, 0.25),
    "dialect": (1.0, 0.0, 0.0),
}
_HAIR_LENGTH = {"female": (0.2, 0.3, 0.5), "male": (0.75, 0.2, 0.05)}


@dataclass(frozen=True)
class _Table:
    """A block of labels drawn together: codes (cells, labels) with exact counts or with proportions."""

    labels: tuple[str, ...]
    codes: np.ndarray
    weights: np.ndarray
    exact: bool


class JointOptions(TypedDict, total=False):
    """The fields of :class:`Joint` as keywords of whoever draws faces; ``None`` leaves one at its default."""

    bias: Bias | None
    cells: Cells | None
    rates: Mapping[str, float] | None
    expressions: Sequence[str] | None


@dataclass(frozen=True)
class Joint:
    """A joint distribution of labels, checked on construction.

    Attributes:
        bias: strengths in [-1, 1] by pair of two-valued labels. With rates p, q of the positive values, both are
            positive with probability p q + s (min(p, q) - p q) for s >= 0, and p q + s (p q - max(0, p + q - 1)) for
            s < 0: the rates stay, s = 0 is independence, s = 1 and -1 are the strongest associations these rates
            allow. With rates of one half, s is the correlation (phi) of the labels. Pairs must not form a ring.
        cells: tables of cells by labels; whole numbers are exact counts, fractions that sum to 1 are proportions.
        rates: probability of the positive value by two-valued label, instead of the default.
        expressions: expressions drawn evenly; None draws ``happy`` for smiling faces and ``neutral`` for others.
    """

    bias: Bias = field(default_factory=dict)
    cells: Cells = field(default_factory=dict)
    rates: Mapping[str, float] = field(default_factory=dict)
    expressions: Sequence[str] | None = None
    _tables: tuple[_Table, ...] = field(init=False, repr=False, compare=False)
    _rates: dict[str, float] = field(init=False, repr=False, compare=False)
    # Labels in drawing order: (label, parent or None, strength).
    _order: list[tuple[str, str | None, float]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        tables = tuple(_table(labels, table) for labels, table in self.cells.items())
        in_cells = [label for table in tables for label in table.labels]
        if len(set(in_cells)) < len(in_cells):
            raise ConfigError(f"`cells` may hold each label once; got {sorted(in_cells)}.")
        if {"smile", "expression"} <= set(in_cells):
            raise ConfigError("`cells` may hold 'smile' or 'expression', not both: a face smiles when it is 'happy'.")
        rates: dict[str, float] = {}
        for name, rate in self.rates.items():
            label = label_of(name)
            if label in CATEGORIES:
                raise ConfigError(f"`rates` takes two-valued labels; give '{label}' as proportions in `cells`.")
            if label in in_cells:
                raise ConfigError(f"'{label}' stands in `cells` and in `rates`; name it once.")
            if not isinstance(rate, Real) or not 0 <= rate <= 1:
                raise ConfigError(f"`rates['{name}']` must lie in 0..1; got {rate!r}.")
            rates[label] = float(rate)
        edges: dict[tuple[str, str], float] = {}
        for pair, strength in self.bias.items():
            if not isinstance(pair, tuple) or len(pair) != 2:
                raise ConfigError(f"`bias` maps pairs of labels, as ('smile', 'skin'), to strengths; got {pair!r}.")
            a, b = (label_of(name) for name in pair)
            for label in (a, b):
                if label in CATEGORIES:
                    raise ConfigError(f"`bias` takes two-valued labels; plant '{label}' with `cells`.")
            if a == b:
                raise ConfigError(f"`bias` needs two different labels; got {pair!r}.")
            if not isinstance(strength, Real) or not -1 <= strength <= 1:
                raise ConfigError(f"`bias[{pair!r}]` must lie in -1..1; got {strength!r}.")
            edges[(a, b)] = float(strength)
        if self.expressions is not None:
            if "expression" in in_cells or "smile" in {*in_cells, *rates, *(x for e in edges for x in e)}:
                raise ConfigError("`expressions` decides who smiles; do not also plant 'smile' or 'expression'.")
            if not self.expressions:
                raise ConfigError("`expressions` must name at least one expression.")
            for name in self.expressions:
                label_position("expression", name)
        if "expression" in in_cells and any("smile" in pair for pair in edges):
            raise ConfigError("`cells` plants 'expression', which decides who smiles; do not also plant 'smile'.")
        object.__setattr__(self, "_tables", tables)
        object.__setattr__(self, "_rates", rates)
        object.__setattr__(self, "_order", _forest(edges, in_cells))

    @property
    def num_exact(self) -> int | None:
        """Number of faces that exact cells ask for; None where nothing is exact."""
        totals = {int(table.weights.sum()) for table in self._tables if table.exact}
        if len(totals) > 1:
            raise ConfigError(f"Tables of counts in `cells` must sum to one total; got {sorted(totals)}.")
        return totals.pop() if totals else None

    def picture_parents(self) -> list[tuple[str, str]]:
        """(parent, child) pairs in which a person's label would follow a picture's label."""
        late = [(p, c) for c, p, _ in self._order if p in PICTURE_LABELS and c in PERSON_LABELS]
        return late + [("cells", x) for t in self._tables for x in t.labels if x in PICTURE_LABELS]

    def draw(self, uniform: Draw) -> dict[str, np.ndarray]:
        """Codes of every label, int64 (n,) each; ``uniform(name)`` gives n draws in [0, 1) by name."""
        codes: dict[str, np.ndarray] = {}
        rates = {label: ATTRIBUTES[name].rate for label, name in LABELS.items()} | self._rates
        planted = set(self._rates)
        for table in self._tables:
            rows = _cells_of(table, uniform("cells:" + ",".join(table.labels)))
            for k, label in enumerate(table.labels):
                codes[label] = table.codes[rows, k]
                planted.add(label)
                if label in LABELS:
                    rates[label] = float((table.weights * table.codes[:, k]).sum() / table.weights.sum())
        for label, parent, strength in self._order:
            if parent is not None:
                planted |= {label, parent}
            if label in codes:
                continue
            chance: np.ndarray | float = rates[label]
            if parent is not None:
                chance = _conditional(rates[label], rates[parent], strength)[codes[parent]]
            elif label == "beard" and "beard" not in planted and not self._has_child("beard"):
                chance = np.array([BEARD_RATE["female"], BEARD_RATE["male"]])[codes["gender"]]
            codes[label] = (uniform("label:" + label) < chance).astype(np.int64)
        for label in CATEGORIES:
            if label not in codes:
                codes[label] = self._category(label, codes, uniform)
        codes["smile"] = (codes["expression"] == label_position("expression", "happy")).astype(np.int64)
        return codes

    def _has_child(self, label: str) -> bool:
        return any(parent == label for _, parent, _ in self._order)

    def _category(self, label: str, codes: dict[str, np.ndarray], uniform: Draw) -> np.ndarray:
        if label == "expression":
            if self.expressions is None:
                return codes["smile"].copy()  # codes 0 and 1 are neutral and happy
            names = np.array([label_position("expression", name) for name in self.expressions])
            return names[(uniform("label:expression") * len(names)).astype(np.int64)]
        if label == "hair_length":
            limits = np.cumsum([_HAIR_LENGTH["female"], _HAIR_LENGTH["male"]], axis=1)[codes["gender"]]
        else:
            limits = np.cumsum(_SHARES[label])[None]
        return (uniform(label)[:, None] >= limits[:, :-1]).sum(1).astype(np.int64)


def _table(names: tuple[str, ...], table: Mapping[tuple[object, ...], float]) -> _Table:
    names = (names,) if isinstance(names, str) else tuple(names)
    labels = tuple(label_of(name) for name in names)
    if not table:
        raise ConfigError(f"`cells[{names!r}]` is empty.")
    codes: list[list[int]] = []
    weights: list[float] = []
    for cell, weight in table.items():
        values = cell if isinstance(cell, tuple) else (cell,)
        if len(values) != len(labels):
            raise ConfigError(f"A cell of {labels} needs {len(labels)} values; got {cell!r}.")
        codes.append([label_position(label, value) for label, value in zip(labels, values, strict=True)])
        if not isinstance(weight, Real) or isinstance(weight, bool) or not weight >= 0:
            raise ConfigError(f"Cell {cell!r} must hold a count or a proportion >= 0; got {weight!r}.")
        weights.append(weight)
    exact = all(isinstance(weight, Integral) for weight in weights)
    total = float(sum(weights))
    if total <= 0:
        raise ConfigError(f"`cells[{names!r}]` has no faces; give at least one cell a count above 0.")
    if not exact and abs(total - 1) > 1e-6:
        raise ConfigError(f"Proportions in `cells[{names!r}]` must sum to 1; got {total:g}. Counts are whole numbers.")
    return _Table(labels, np.array(codes, dtype=np.int64), np.array(weights, dtype=np.float64), exact)


def _cells_of(table: _Table, draws: np.ndarray) -> np.ndarray:
    """Row of the table for each face, (n,); counts are dealt in order of the draws, so equal draws (the pictures of
    one person) share a cell, each count standing for as many pictures as a person has.
    """
    if not table.exact:
        limits = np.cumsum(table.weights) / table.weights.sum()
        return np.minimum(np.searchsorted(limits, draws, side="right"), len(limits) - 1)
    pictures = len(draws) // int(table.weights.sum())
    rows = np.empty(len(draws), dtype=np.int64)
    dealt = np.repeat(np.arange(len(table.weights)), table.weights.astype(np.int64) * pictures)
    rows[np.argsort(draws, kind="stable")] = dealt
    return rows


def _conditional(rate: float, parent_rate: float, strength: float) -> np.ndarray:
    """Chances of the positive label given the parent's value 0 and 1, (2,); see :class:`Joint` for the formula."""
    product = rate * parent_rate
    room = min(rate, parent_rate) - product if strength >= 0 else product - max(0.0, rate + parent_rate - 1)
    both = product + strength * room
    given_no = (rate - both) / (1 - parent_rate) if parent_rate < 1 else rate
    given_yes = both / parent_rate if parent_rate > 0 else rate
    return np.array([given_no, given_yes])


def _forest(edges: Mapping[tuple[str, str], float], decided: Sequence[str]) -> list[tuple[str, str | None, float]]:
    """Order the labels so that each follows its parent: (label, parent or None, strength)."""
    near: dict[str, list[tuple[str, float]]] = {}
    for (a, b), strength in edges.items():
        near.setdefault(a, []).append((b, strength))
        near.setdefault(b, []).append((a, strength))
    order: list[tuple[str, str | None, float]] = []
    seen: set[str] = set()
    num_edges = 0
    roots = [x for x in decided if x in LABELS]
    for root in (*roots, *PERSON_LABELS, *PICTURE_LABELS):
        if root in seen:
            continue
        seen.add(root)
        order.append((root, None, 0.0))
        queue = [root]
        while queue:
            here = queue.pop(0)
            for label, strength in near.get(here, ()):
                if label not in seen:
                    if label in roots:
                        raise ConfigError(f"`bias` joins '{here}' to '{label}', but `cells` already decides '{label}'.")
                    seen.add(label)
                    order.append((label, here, strength))
                    num_edges += 1
                    queue.append(label)
    if num_edges < len(edges):
        raise ConfigError("Pairs in `bias` form a ring; plant such a joint distribution with `cells`.")
    # A beard looks at the gender by default.
    return sorted(order, key=lambda item: item[0] == "beard" and item[1] is None and "beard" not in near)
