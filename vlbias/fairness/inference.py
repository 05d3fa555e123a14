"""How sure a number is: bootstrap intervals, and what chance alone would give."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import random_table

from vlbias.errors import ConfigError, unknown
from vlbias.fairness.counts import check_cells, count
from vlbias.fairness.metrics import METRICS, metrics_from_counts
from vlbias.fairness.settings import EvaluationSettings
from vlbias.settings import with_changes

__all__ = ["Excess", "interval", "permutation_test", "permuted_counts", "person_weights", "resampled_counts"]

#: A number that is undefined in more resamples than this share has no interval.
MAX_UNDEFINED = 0.05


def interval(draws: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """The percentile interval of resampled values (b,); NaN where more than 5 % of them are undefined.

    Example:
        >>> interval(np.arange(101.0), 0.5), interval(np.array([1.0, np.nan]))
        ((25.0, 75.0), (nan, nan))
    """
    known = draws[~np.isnan(draws)]
    if not len(known) or len(known) < (1 - MAX_UNDEFINED) * len(draws):
        return float("nan"), float("nan")
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def resampled_counts(n: np.ndarray, num_resamples: int, seed: int) -> np.ndarray:
    """Counts (num_resamples, g, y, p): each cell's items drawn with replacement, one multinomial draw a cell."""
    rng = np.random.default_rng(seed)
    support = n.sum(-1, keepdims=True)
    uniform = np.full(n.shape[-1], 1 / n.shape[-1])
    p = np.where(support > 0, n / np.maximum(support, 1), uniform)
    return rng.multinomial(support[..., 0].astype(np.int64), p, size=(num_resamples, *n.shape[:2])).astype(float)


def permuted_counts(n: np.ndarray, num_permutations: int, seed: int | Sequence[int]) -> np.ndarray:
    """Counts (num_permutations, g, y, p) with group labels permuted within each true class of ``n`` (g, y, p)."""
    rng = np.random.default_rng(seed)
    null = np.zeros((num_permutations, *n.shape))
    for y in range(n.shape[1]):
        table = n[:, y].astype(int)  # (g, p): which group got which prediction, among those of class y
        if table.sum():
            drawn = random_table(table.sum(1), table.sum(0)).rvs(num_permutations, random_state=rng)
            null[:, :, y] = drawn
    return null


def person_weights(
    persons: np.ndarray, groups: np.ndarray, num_resamples: int, seed: int | Sequence[int]
) -> np.ndarray:
    """Bootstrap weights (b, n): people drawn with replacement within each group, all images of a person together.

    Drawing within groups keeps every group's number of people, so no replicate loses a group.
    """
    generator = np.random.default_rng(seed)
    weights = np.zeros((num_resamples, len(persons)))
    for group in np.unique(groups):
        inside = np.flatnonzero(groups == group)
        _, person = np.unique(persons[inside], return_inverse=True)
        num_persons = int(person.max()) + 1
        drawn = generator.multinomial(num_persons, np.full(num_persons, 1.0 / num_persons), size=num_resamples)
        weights[:, inside] = drawn[:, person]
    return weights


@dataclass(frozen=True)
class Excess:
    """A gap against what chance alone gives in groups of these sizes. All but the counts is NaN where it is unknown.

    Attributes:
        metric: its name.
        value: the metric as observed.
        null_mean: its mean when group labels carry no information (permuted within each true class).
        excess: ``value - null_mean``; near 0 where there is no disparity, however small the test set.
        p_value: one-sided, with the observed arrangement counted: (1 + #as extreme) / (1 + permutations).
        num_permutations: arrangements drawn.
    """

    metric: str
    value: float
    null_mean: float
    excess: float
    p_value: float
    num_permutations: int


def permutation_test(
    y_true: Any,
    y_pred: Any,
    *,
    groups: Any,
    metric: str = "equalized_odds_difference",
    num_permutations: int = 1000,
    settings: EvaluationSettings | None = None,
    **changes: Any,
) -> Excess:
    """How much of a gap is more than sampling noise.

    A largest-minus-smallest gap is above zero even where nothing differs, and more so in small test sets. Here group
    labels are permuted within each true class, which keeps every class and group as large as it is; the mean gap of
    those arrangements is what chance gives. Each arrangement is drawn as a random table with the observed margins.

    Args:
        y_true, y_pred, groups: as for :func:`evaluate`.
        metric: a name in ``METRICS`` that compares groups.
        num_permutations: arrangements drawn, >= 1.
        settings, changes: as for :func:`evaluate`; ``seed`` is that of the drawing.

    Returns:
        The excess; NaN throughout where the metric cannot be known.

    Raises:
        UnknownNameError: no such metric; else as :func:`evaluate`.
        ConfigError: a metric that does not compare groups, or a setting out of range.
    """
    if metric not in METRICS:
        raise unknown("metric", metric, METRICS)
    if not METRICS[metric].compares_groups:
        able = ", ".join(name for name, known in METRICS.items() if known.compares_groups)
        raise ConfigError(f"'{metric}' does not compare groups, so nothing can be permuted. Choose one of: {able}.")
    if num_permutations < 1:
        raise ConfigError(f"`num_permutations` must be >= 1; got {num_permutations}.")
    settings = with_changes(EvaluationSettings, settings, changes)
    counts = count(y_true, y_pred, groups, settings.classes, settings.group_names)
    how = settings.for_counts(counts.classes)
    check_cells(counts, settings.min_cell)
    value = float(metrics_from_counts(counts.n, **how)[metric])
    draws = metrics_from_counts(permuted_counts(counts.n, num_permutations, settings.seed), **how)[metric]
    if np.isnan(value) or np.isnan(draws).any():
        return Excess(metric, value, float("nan"), float("nan"), float("nan"), num_permutations)
    # Sums of the same counts in another order differ in the last bit; equal arrangements must count as equal.
    extreme = draws <= value + 1e-12 if METRICS[metric].higher_is_better else draws >= value - 1e-12
    null_mean, p_value = float(draws.mean()), float((1 + extreme.sum()) / (1 + num_permutations))
    return Excess(metric, value, null_mean, value - null_mean, p_value, num_permutations)
