"""How sure a number is: bootstrap intervals, and what chance alone would give."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import random_table

from vlbias.arguments import checked_call
from vlbias.errors import ConfigError, LabelError, ShapeError, unknown
from vlbias.fairness.counts import check_cells, count, tally
from vlbias.fairness.metrics import METRICS, metrics_from_counts
from vlbias.fairness.settings import EvaluationSettings
from vlbias.labels import label_texts
from vlbias.settings import MAX_DRAWS, checked_number, with_changes

__all__ = [
    "Excess",
    "interval",
    "outdoes",
    "permutation_test",
    "permuted_counts",
    "permuted_groups",
    "person_codes",
    "person_weights",
]

#: A number that is undefined in more resamples than this share has no interval.
MAX_UNDEFINED = 0.05
#: Means of shares that differ by less do so by rounding.
LEAST_DIFFERENCE = 1e-9


def interval(draws: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """The percentile interval of resampled values (b,); NaN of fewer than two, or where more than 5 % are undefined.

    Example:
        >>> interval(np.arange(101.0), 0.5), interval(np.array([1.0, np.nan]))
        ((25.0, 75.0), (nan, nan))
    """
    checked_number("level", level, float, low=0, high=1)
    try:
        draws = np.asarray(draws, dtype=float)
    except (TypeError, ValueError) as error:
        raise ShapeError(f"`draws` must be numbers (b,); got {draws!r:.60}.") from error
    known = draws[~np.isnan(draws)]
    if len(known) < max(2, (1 - MAX_UNDEFINED) * len(draws)):  # one draw says nothing of how they differ
        return float("nan"), float("nan")
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def outdoes(accuracy: float, gap: float) -> bool:
    """Whether who differs so from another dominates it: is no less accurate, with no larger gap, and better in one.

    Args:
        accuracy, gap: its own minus the other's, means of shares of 1; rounding in their last digits decides nothing.

    Example:
        >>> outdoes(0.1, 0.0), outdoes(0.1, 0.1), outdoes(1e-17, 0.0)
        (True, False, False)
    """
    return accuracy >= -LEAST_DIFFERENCE and gap <= LEAST_DIFFERENCE and max(accuracy, -gap) > LEAST_DIFFERENCE


def permuted_counts(n: np.ndarray, num_permutations: int, seed: int | Sequence[int]) -> np.ndarray:
    """Counts (num_permutations, g, y, p) with group labels permuted within each true class of ``n`` (g, y, p)."""
    checked_number("num_permutations", num_permutations, low=0, high=MAX_DRAWS)
    rng = np.random.default_rng(seed)
    null = np.zeros((num_permutations, *n.shape))
    for y in range(n.shape[1]):
        table = n[:, y].astype(int)  # (g, p): which group got which prediction, among those of class y
        if table.sum():
            drawn = random_table(table.sum(1), table.sum(0)).rvs(num_permutations, random_state=rng)
            null[:, :, y] = drawn
    return null


def permuted_groups(
    groups: np.ndarray, y_true: np.ndarray, persons: np.ndarray, num_permutations: int, seed: int | Sequence[int]
) -> np.ndarray:
    """Group codes (num_permutations, n) with the groups of people dealt anew; all images of a person go together.

    Images of one person resemble each other, so they are no evidence of their own. People are permuted among those
    whose commonest true class is the same, which keeps classes and groups about as large as they are. With one image a
    person this permutes groups within each true class. Who has images in several groups counts as one person in each.

    Args:
        groups, y_true: codes (n,).
        persons: who is in each image (n,), any codes.
        num_permutations: arrangements drawn.
        seed: of the drawing.
    """
    checked_number("num_permutations", num_permutations, low=0, high=MAX_DRAWS)
    rng = np.random.default_rng(seed)
    pairs, person = np.unique(np.stack([persons, groups]), axis=1, return_inverse=True)
    person = person.ravel()  # NumPy 2.0 gives it an axis more
    images = np.zeros((pairs.shape[1], int(y_true.max()) + 1))
    np.add.at(images, (person, y_true), 1)
    commonest = images.argmax(1)
    dealt = np.tile(pairs[1], (num_permutations, 1))
    for y in np.unique(commonest):
        inside = np.flatnonzero(commonest == y)
        dealt[:, inside] = rng.permuted(dealt[:, inside], axis=1)
    return np.asarray(dealt[:, person])


def person_weights(
    persons: np.ndarray, groups: np.ndarray, num_resamples: int, seed: int | Sequence[int]
) -> np.ndarray:
    """Bootstrap weights (b, n): people drawn with replacement within each group, all images of a person together.

    Drawing within groups keeps every group's number of people, so no replicate loses a group. A group of one person
    always has the weight 1: it shows nothing of how people differ, and a caller must not take that for certainty.
    """
    checked_number("num_resamples", num_resamples, low=0, high=MAX_DRAWS)
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


@checked_call
def permutation_test(
    y_true: object,
    y_pred: object,
    *,
    groups: object,
    metric: str = "equalized_odds_difference",
    persons: object = None,
    weights: object = None,
    num_permutations: int = 1000,
    settings: EvaluationSettings | None = None,
    **changes: object,
) -> Excess:
    """How much of a gap is more than sampling noise.

    A largest-minus-smallest gap is above zero even where nothing differs, and more so in small test sets. Here group
    labels are permuted within each true class, which keeps every class and group as large as it is; the mean gap of
    those arrangements is what chance gives. Each arrangement is drawn as a random table with the observed margins.

    Args:
        y_true, y_pred, groups: as for :func:`evaluate`.
        metric: a name in ``METRICS`` that compares groups.
        persons: who is in each item (n,), any labels; people are then permuted, see :func:`permuted_groups`. ``None``
            where each item is another person.
        weights: how often each item counts, as for :func:`evaluate`; an item keeps its weight in every arrangement.
        num_permutations: arrangements drawn, >= 1.
        settings, changes: as for :func:`evaluate`; ``seed`` is that of the drawing.

    Returns:
        The excess; NaN throughout where the metric cannot be known.

    Raises:
        UnknownNameError: no such metric; else as :func:`evaluate`.
        ShapeError, LabelError: ``persons`` or ``weights`` of another length, a name is missing, or no weights.
        ConfigError: a metric that does not compare groups, or a setting out of range.
    """
    if metric not in METRICS:
        raise unknown("metric", metric, METRICS)
    if not METRICS[metric].compares_groups:
        able = ", ".join(name for name, known in METRICS.items() if known.compares_groups)
        raise ConfigError(f"'{metric}' does not compare groups, so nothing can be permuted. Choose one of: {able}.")
    num_permutations = checked_number("num_permutations", num_permutations, low=1, high=MAX_DRAWS)
    settings = with_changes(EvaluationSettings, settings, changes)
    counts = count(y_true, y_pred, groups, settings.classes, settings.group_names)
    how = settings.for_counts(counts.classes)
    check_cells(counts, settings.min_cell)
    n, each = counts.n, None
    if weights is not None:
        n, each = counts.weighted(weights), np.asarray(weights, dtype=float)
    value = float(metrics_from_counts(n, **how, observed=counts.n)[metric])
    if persons is None and each is None:
        null = permuted_counts(counts.n, num_permutations, settings.seed)
    else:
        group, true, predicted = counts.items
        people = np.arange(len(group)) if persons is None else person_codes(persons, len(group))
        dealt = permuted_groups(group, true, people, num_permutations, settings.seed)
        size = {"num_groups": len(counts.groups), "num_classes": len(counts.classes)}
        null = tally(dealt, true, predicted, **size, weights=each)
    draws = metrics_from_counts(null, **how, observed=counts.n)[metric]
    known = draws[~np.isnan(draws)]
    if np.isnan(value) or len(known) < (1 - MAX_UNDEFINED) * num_permutations:
        return Excess(metric, value, float("nan"), float("nan"), float("nan"), num_permutations)
    # Sums of the same counts in another order differ in the last bit; equal arrangements must count as equal. What is
    # undefined counts as extreme.
    is_high = METRICS[metric].higher_is_better
    milder = known > value + 1e-12 if is_high else known < value - 1e-12
    null_mean, p_value = float(known.mean()), float((1 + num_permutations - milder.sum()) / (1 + num_permutations))
    return Excess(metric, value, null_mean, value - null_mean, p_value, num_permutations)


def person_codes(persons: Any, num_items: int) -> np.ndarray:
    """Names of people, of any kind => codes (num_items,).

    Raises:
        ShapeError: another number of names.
        LabelError: a name is missing.
    """
    if not isinstance(persons, Iterable):
        raise ShapeError(f"`persons` must be ({num_items},), a name for each item; got {persons!r:.60}.")
    texts = label_texts(persons if isinstance(persons, pd.Series) else list(persons))
    if len(texts) != num_items:
        raise ShapeError(f"`persons` must be ({num_items},), one per item; got {len(texts)}.")
    if texts.isna().any():
        position = int(np.flatnonzero(texts.isna())[0])
        raise LabelError(f"`persons` misses a name at position {position}; leave such items out first.")
    return np.asarray(pd.factorize(texts)[0])
