"""The metrics, as formulas on counts (..., g, y, p); any number of tables rides in front, so that a thousand resamples
cost one array operation. ``docs/fairness.md`` has all formulas.

What cannot be known is NaN: a rate that rests on no item, a gap or ratio of fewer than two known groups, and whatever
would need it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from einops import einsum, reduce

from vlbias.arguments import checked_call
from vlbias.errors import ConfigError, ShapeError

__all__ = [
    "METRICS",
    "OVER_CLASSES",
    "Metric",
    "f1_by_class",
    "gap",
    "mean_known",
    "metrics_from_counts",
    "metrics_from_rates",
    "rates",
    "share",
]

#: How the classes of a metric are joined where none is the positive one.
OVER_CLASSES = ("worst", "mean")


@dataclass(frozen=True)
class Metric:
    """What a number is called, which way is better, and what it says in one sentence.

    Attributes:
        compares_groups: whether it would change if group labels were dealt anew.
    """

    name: str
    title: str
    higher_is_better: bool
    meaning: str
    compares_groups: bool = True


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("accuracy", "Accuracy", True, "Share of test items classified correctly.", False),
        Metric("balanced_accuracy", "Balanced accuracy", True, "Mean over classes of the share found.", False),
        Metric("macro_f1", "Macro F1", True, "Mean over classes of the F1 score.", False),
        Metric("worst_group_accuracy", "Worst group accuracy", True, "Accuracy of the group served worst."),
        Metric(
            "worst_cell_accuracy",
            "Worst cell accuracy",
            True,
            "Accuracy of the worst cell; a cell is one target class within one group.",
        ),
        Metric("accuracy_gap", "Accuracy gap", False, "Largest minus smallest group accuracy."),
        Metric(
            "equal_opportunity_difference",
            "Equal opportunity difference",
            False,
            "Largest minus smallest true positive rate between groups.",
        ),
        Metric(
            "equalized_odds_difference",
            "Equalised odds difference",
            False,
            "The larger of the gaps in true positive rate and in false positive rate between groups.",
        ),
        Metric(
            "demographic_parity_difference",
            "Demographic parity difference",
            False,
            "Largest minus smallest share of a group predicted positive.",
        ),
        Metric(
            "demographic_parity_ratio",
            "Demographic parity ratio",
            True,
            "Smallest divided by largest share of a group predicted positive; 1 is parity.",
        ),
    )
}


@checked_call
def metrics_from_counts(
    n: np.ndarray,
    *,
    positive: int | None = None,
    over_classes: str = "worst",
    min_cell: int = 1,
    observed: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """All metrics of many tables of counts at once.

    Args:
        n: counts (..., groups, true class, predicted class).
        positive: index of the positive class; ``None`` joins all classes by ``over_classes``.
        over_classes: ``"worst"`` (largest difference, smallest ratio) or ``"mean"``, over the classes whose value is
            known.
        min_cell: rates that rest on fewer items are left out, >= 1.
        observed: counts whose sizes decide what is left out, of a shape that broadcasts to that of ``n``; ``None`` for
            ``n`` itself. With resamples of a table, give the table: all of them then compare the same groups, and a
            resample in which one of these has no item gives NaN.

    Returns:
        Metric name => values of the leading shape, and ``group_f1`` (..., groups), macro F1 within each group.

    Raises:
        ShapeError: ``n`` is not of that shape.
        ConfigError: an option out of range.
    """
    n = np.asarray(n)
    if n.ndim < 3 or n.shape[-1] != n.shape[-2] or 0 in n.shape[-3:] or n.dtype.kind not in "biuf":
        raise ShapeError(f"`n` must be counts (..., groups, classes, classes); got {n.dtype} {n.shape}.")
    if over_classes not in OVER_CLASSES:
        raise ConfigError(f"`over_classes` must be 'worst' or 'mean'; got {over_classes!r}.")
    rate = rates(n, min_cell if observed is None else 0)
    known = {name: ~np.isnan(x) for name, x in (rate if observed is None else rates(observed, min_cell)).items()}
    total = reduce(n, "... g y p -> ... y p", "sum")
    found, support = einsum(total, "... c c -> ... c"), total.sum(-1)
    return {
        "accuracy": share(found.sum(-1), support.sum(-1)),
        "balanced_accuracy": mean_known(share(found, support), -1),
        "macro_f1": mean_known(f1_by_class(total), -1),
        **metrics_from_rates(rate, known, positive=positive, over_classes=over_classes),
        "group_f1": mean_known(f1_by_class(n), -1),
    }


def metrics_from_rates(
    rate: Mapping[str, np.ndarray],
    known: Mapping[str, np.ndarray],
    *,
    positive: int | None = None,
    over_classes: str = "worst",
) -> dict[str, np.ndarray]:
    """The metrics that compare groups, from what :func:`rates` gives.

    Args:
        rate: rates, NaN where there is no value.
        known: which of them to compare, of shapes that broadcast to those of the rates. Where one of these has no
            value, a metric that rests on it is NaN.
        positive, over_classes: as for :func:`metrics_from_counts`.
    """
    tpr_gap, fpr_gap = (gap(rate[name], known[name], -2) for name in ("tpr", "fpr"))  # (..., c)
    selection = rate["selection"], known["selection"], -2

    def join(per_class: np.ndarray, *rests_on: str, worst_is_high: bool = True) -> np.ndarray:
        compared = np.all([known[name].sum(-2) >= 2 for name in rests_on], axis=0)
        if positive is not None:
            return np.where(compared, per_class, np.nan)[..., positive]
        if over_classes == "mean":
            return share(np.sum(per_class, -1, initial=0, where=compared), compared.sum(-1))
        extreme = np.max(per_class, -1, initial=-np.inf, where=compared)
        if not worst_is_high:
            extreme = np.min(per_class, -1, initial=np.inf, where=compared)
        return np.where(compared.any(-1), extreme, np.nan)

    return {
        "worst_group_accuracy": _least(rate["accuracy"], known["accuracy"], (-1,)),
        "worst_cell_accuracy": _least(rate["tpr"], known["tpr"], (-2, -1)),
        "accuracy_gap": gap(rate["accuracy"], known["accuracy"], -1),
        "equal_opportunity_difference": join(tpr_gap, "tpr"),
        # maximum, not fmax: the larger of two gaps is not known where one of them is not
        "equalized_odds_difference": join(np.maximum(tpr_gap, fpr_gap), "tpr", "fpr"),
        "demographic_parity_difference": join(gap(*selection), "selection"),
        "demographic_parity_ratio": join(_ratio(*selection), "selection", worst_is_high=False),
    }


def rates(n: np.ndarray, min_cell: int = 1) -> dict[str, np.ndarray]:
    """Rates per group and class, NaN where they rest on fewer than ``min_cell`` items.

    Returns:
        ``tpr``, ``fpr`` and ``selection`` (..., g, c), one class against the rest, and ``accuracy`` (..., g).
    """
    found = einsum(n, "... g c c -> ... g c")
    support, predicted = n.sum(-1), n.sum(-2)
    size = support.sum(-1, keepdims=True)

    def rate(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
        return np.where(whole >= min_cell, share(part, whole), np.nan)

    return {
        "tpr": rate(found, support),
        "fpr": rate(predicted - found, size - support),
        "selection": rate(predicted, size + 0 * predicted),
        "accuracy": rate(found.sum(-1), size[..., 0]),
    }


def f1_by_class(n: np.ndarray) -> np.ndarray:
    """F1 of each class (..., c) from confusion tables (..., y, p); NaN for a class that is nowhere."""
    found = einsum(n, "... c c -> ... c")
    return share(2 * found, n.sum(-1) + n.sum(-2))


def share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """``part / whole``, NaN where the whole is nothing."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(whole > 0, part / np.where(whole > 0, whole, 1), np.nan)


def mean_known(x: np.ndarray, axis: int) -> np.ndarray:
    """Mean of the values that are known; NaN where none is."""
    known = ~np.isnan(x)
    return share(np.where(known, x, 0).sum(axis), known.sum(axis))


def gap(x: np.ndarray, known: np.ndarray, axis: int) -> np.ndarray:
    """Largest minus smallest of the values to compare; NaN with fewer than two of them, or where one has no value.

    Args:
        x: values.
        known: which of them to compare, of a shape that broadcasts to that of ``x``.
        axis: of the groups.
    """
    high, low = _extremes(x, known, axis)
    return high - low


def _ratio(x: np.ndarray, known: np.ndarray, axis: int) -> np.ndarray:
    """Smallest divided by largest, else as :func:`gap`. Where all are 0 they are equal: 1."""
    high, low = _extremes(x, known, axis)
    return np.where(high == 0, 1.0, share(low, high))


def _extremes(x: np.ndarray, known: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    enough = known.sum(axis) >= 2
    high = np.max(x, axis, initial=-np.inf, where=known)  # NaN where one of them is
    low = np.min(x, axis, initial=np.inf, where=known)
    return np.where(enough, high, np.nan), np.where(enough, low, np.nan)


def _least(x: np.ndarray, known: np.ndarray, axis: tuple[int, ...]) -> np.ndarray:
    """Smallest of the values to compare; NaN where there is none, or where one has no value."""
    return np.where(known.any(axis), np.min(x, axis, initial=np.inf, where=known), np.nan)
