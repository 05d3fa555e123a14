"""The metrics of one set of predictions, with intervals and tables by group and cell."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pandas as pd

from vlbias.arguments import checked_call
from vlbias.errors import unknown
from vlbias.fairness.counts import Counts, check_cells, count
from vlbias.fairness.inference import person_codes
from vlbias.fairness.intervals import Fits, intervals, resampled_items, resampled_table
from vlbias.fairness.metrics import METRICS, f1_by_class, mean_known, metrics_from_counts, rates, share
from vlbias.fairness.settings import EvaluationSettings
from vlbias.files import json_records, json_value
from vlbias.settings import with_changes
from vlbias.shown import printable

__all__ = [
    "FairnessReport",
    "accuracy",
    "accuracy_gap",
    "balanced_accuracy",
    "demographic_parity_difference",
    "demographic_parity_ratio",
    "equal_opportunity_difference",
    "equalized_odds_difference",
    "evaluate",
    "macro_f1",
    "worst_cell_accuracy",
    "worst_group_accuracy",
]


class FairnessReport(Mapping[str, float]):
    """The metrics of one set of predictions; reads like a dictionary of point values.

    Attributes:
        intervals: metric name -> (low, high), or empty when no bootstrap was asked for.
        groups: one row per group: count, accuracy, balanced_accuracy, macro_f1. Groups of several columns have one
            index level per column.
        cells: one row per (group, class): count, true_positive_rate (the accuracy of the cell), false_positive_rate
            and selection_rate of that class within the group.
        settings: how it was evaluated, with the positive class that was taken.
        num_dropped_cells: cells left out because they hold fewer than ``min_cell`` items.
    """

    def __init__(
        self,
        values: Mapping[str, float],
        intervals: Mapping[str, tuple[float, float]],
        groups: pd.DataFrame,
        cells: pd.DataFrame,
        settings: EvaluationSettings,
        num_dropped_cells: int,
    ):
        self._values = dict(values)
        self.intervals = dict(intervals)
        self.groups, self.cells = groups, cells
        self.settings = settings
        self.num_dropped_cells = num_dropped_cells

    def __getitem__(self, name: str) -> float:
        if name not in self._values:
            raise unknown("metric", name, self._values)
        return self._values[name]

    def __contains__(self, name: object) -> bool:
        return name in self._values

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return printable(f"FairnessReport({', '.join(f'{name}={value:.3f}' for name, value in self.items())})")

    def _repr_html_(self) -> str:
        return str(self.table.round(3).to_html())

    def _ipython_key_completions_(self) -> list[str]:
        return list(self)

    @property
    def table(self) -> pd.DataFrame:
        """One row per metric: value, low, high."""
        rows = {name: (value, *self.intervals.get(name, (np.nan, np.nan))) for name, value in self.items()}
        return pd.DataFrame.from_dict(rows, orient="index", columns=["value", "low", "high"])

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and lists, ready for JSON; NaN becomes ``None``."""
        return {
            **{name: json_value(value) for name, value in self.items()},
            "intervals": {name: [json_value(low), json_value(high)] for name, (low, high) in self.intervals.items()},
            "groups": json_records(self.groups.reset_index()),
            "cells": json_records(self.cells.reset_index()),
            "settings": {key: json_value(value) for key, value in asdict(self.settings).items()},
            "num_dropped_cells": self.num_dropped_cells,
        }


@checked_call
def evaluate(
    y_true: object,
    y_pred: object,
    *,
    groups: object,
    persons: object = None,
    weights: object = None,
    settings: EvaluationSettings | None = None,
    **changes: object,
) -> FairnessReport:
    """All metrics of one set of predictions.

    Items are resampled within each cell, so the intervals are about these cell sizes, and about this classifier, not
    about training it again. With ``persons`` people are resampled within each group, with all of their items. Gaps have
    intervals that hold for any number of groups, see :mod:`vlbias.fairness.intervals`.

    Args:
        y_true: true classes (n,), any labels.
        y_pred: predicted classes (n,), same labels.
        groups: protected group of each item (n,), any labels; a DataFrame of several columns means their product.
        persons: who is in each item (n,), any labels; ``None`` where each item is another person. A group of one person
            leaves every interval NaN.
        weights: how often each item counts (n,), >= 0; ``None`` for once. ``min_cell`` and ``count`` are of items.
        settings: how to evaluate; ``None`` for the defaults.
        changes: single settings by name, such as ``positive="smile"``, ``min_cell=10`` or ``bootstrap=0``; see
            :class:`EvaluationSettings`.

    Returns:
        The report. A number that cannot be known is NaN, and so is its interval.

    Raises:
        ShapeError: lengths differ, nothing given, or weights that are no weights.
        LabelError: missing labels, a predicted class that is none of the truth, an empty group or cell (see
            ``min_cell``), or fewer than two groups.
        ConfigError, UnknownNameError: a setting is out of range or names no class.

    Example:
        >>> report = evaluate([1, 1, 0, 0], [1, 0, 0, 0], groups=["a", "b", "a", "b"], bootstrap=0)
        >>> report["accuracy_gap"], report["worst_cell_accuracy"]
        (0.5, 0.0)
    """
    settings = with_changes(EvaluationSettings, settings, changes)
    counts = count(y_true, y_pred, groups, settings.classes, settings.group_names)
    how = settings.for_counts(counts.classes)
    check_cells(counts, settings.min_cell)
    n = counts.n if weights is None else counts.weighted(weights)
    values = metrics_from_counts(n, **how, observed=counts.n)
    between = {}
    if settings.bootstrap:
        if persons is None and weights is None:
            resamples = resampled_table(n, settings.bootstrap, settings.seed)
        else:
            num_items = len(counts.items[0])
            people = np.arange(num_items) if persons is None else person_codes(persons, num_items)
            each = np.ones(num_items) if weights is None else np.asarray(weights, dtype=float)
            resamples = resampled_items(counts, people, each, settings.bootstrap, settings.seed)
        between = intervals(Fits.of_one(n, resamples), sizes=counts.n, level=settings.level, how=how)
    support = counts.n.sum(2)
    code = how["positive"]
    return FairnessReport(
        {name: float(values[name]) for name in METRICS},
        between,
        _group_table(counts, n),
        _cell_table(counts, n, how["min_cell"]),
        replace(settings, positive=None if code is None else counts.classes[code]),
        int((support[:, support.sum(0) > 0] < how["min_cell"]).sum()),
    )


def _group_table(counts: Counts, n: np.ndarray) -> pd.DataFrame:
    found, support = np.einsum("gcc->gc", n), n.sum(-1)
    table = {
        "count": counts.n.sum((1, 2)).astype(int),
        "accuracy": share(found.sum(-1), support.sum(-1)),
        "balanced_accuracy": mean_known(share(found, support), -1),
        "macro_f1": mean_known(f1_by_class(n), -1),
    }
    return pd.DataFrame(table, index=counts.group_index)


def _cell_table(counts: Counts, n: np.ndarray, min_cell: int) -> pd.DataFrame:
    known = rates(counts.n, min_cell)
    rate = {name: np.where(np.isnan(known[name]), np.nan, x) for name, x in rates(n, 0).items()}
    parts = counts.groups if counts.columns else [(group,) for group in counts.groups]
    rows = [(*part, label) for part in parts for label in counts.classes]
    table = {
        "count": counts.n.sum(-1).astype(int).ravel(),
        "true_positive_rate": rate["tpr"].ravel(),
        "false_positive_rate": rate["fpr"].ravel(),
        "selection_rate": rate["selection"].ravel(),
    }
    return pd.DataFrame(table, index=pd.MultiIndex.from_tuples(rows, names=[*counts.group_index.names, "class"]))


def _one(name: str, y_true: Any, y_pred: Any, groups: Any, **changes: Any) -> float:
    return evaluate(y_true, y_pred, groups=groups, **{**changes, "bootstrap": 0})[name]


def _ungrouped(name: str, y_true: object, y_pred: object, weights: object) -> float:
    y_true = list(y_true) if isinstance(y_true, Iterable) else y_true
    counts = count(y_true, y_pred, [0] * len(y_true) if isinstance(y_true, list) else [])
    return float(metrics_from_counts(counts.n if weights is None else counts.weighted(weights))[name])


@checked_call
def accuracy(y_true: object, y_pred: object, *, weights: object = None) -> float:
    """Share of items classified correctly; weights (n,) as for :func:`evaluate`."""
    return _ungrouped("accuracy", y_true, y_pred, weights)


@checked_call
def balanced_accuracy(y_true: object, y_pred: object, *, weights: object = None) -> float:
    """Mean over the classes that occur in ``y_true`` of the share of each that was found."""
    return _ungrouped("balanced_accuracy", y_true, y_pred, weights)


@checked_call
def macro_f1(y_true: object, y_pred: object, *, weights: object = None) -> float:
    """Mean over classes of F1 = 2 TP / (2 TP + FP + FN)."""
    return _ungrouped("macro_f1", y_true, y_pred, weights)


@checked_call
def accuracy_gap(y_true: object, y_pred: object, *, groups: object, **changes: object) -> float:
    """Largest minus smallest group accuracy; never signed by group order. Settings as for :func:`evaluate`."""
    return _one("accuracy_gap", y_true, y_pred, groups, **changes)


@checked_call
def worst_group_accuracy(y_true: object, y_pred: object, *, groups: object, **changes: object) -> float:
    """Smallest group accuracy. Settings as for :func:`evaluate`."""
    return _one("worst_group_accuracy", y_true, y_pred, groups, **changes)


@checked_call
def worst_cell_accuracy(y_true: object, y_pred: object, *, groups: object, **changes: object) -> float:
    """Smallest accuracy of a cell (target class x group). Settings as for :func:`evaluate`."""
    return _one("worst_cell_accuracy", y_true, y_pred, groups, **changes)


@checked_call
def equal_opportunity_difference(y_true: object, y_pred: object, *, groups: object, **changes: object) -> float:
    """Largest minus smallest true positive rate of groups (Hardt et al., 2016). Settings as for :func:`evaluate`."""
    return _one("equal_opportunity_difference", y_true, y_pred, groups, **changes)


@checked_call
def equalized_odds_difference(y_true: object, y_pred: object, *, groups: object, **changes: object) -> float:
    """The larger of the gaps in true and in false positive rate. Settings as for :func:`evaluate`."""
    return _one("equalized_odds_difference", y_true, y_pred, groups, **changes)


@checked_call
def demographic_parity_difference(y_true: object, y_pred: object, *, groups: object, **changes: object) -> float:
    """Largest minus smallest share predicted positive. Settings as for :func:`evaluate`."""
    return _one("demographic_parity_difference", y_true, y_pred, groups, **changes)


@checked_call
def demographic_parity_ratio(y_true: object, y_pred: object, *, groups: object, **changes: object) -> float:
    """Smallest divided by largest share predicted positive. Settings as for :func:`evaluate`."""
    return _one("demographic_parity_ratio", y_true, y_pred, groups, **changes)
