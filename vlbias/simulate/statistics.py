"""From predictions to curves, slopes and verdicts, with their uncertainty.

Everything asked of a curve here is linear in its points (a slope, a difference of two compositions), so it is a
contrast: weights over the shares. The contrast is taken within each repeat, whose runs share their draw of images,
and its variance has two sources that must not be counted twice: which images and seed a repeat had, and which people
are in the test set.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from vlbias.errors import ShapeError
from vlbias.fairness import metrics_from_counts, permuted_counts

__all__ = ["PARITY", "Contrast", "contrast", "curve_values", "exchange_rate", "gain_weights", "holm", "slope_weights"]

#: Parity measures of a run: name -> whether higher is better. Excesses are gaps minus what chance alone gives.
PARITY = {
    "demographic_parity_ratio": True,
    "demographic_parity_ratio_min": True,
    "demographic_parity_difference": False,
    "equalized_odds_difference": False,
    "demographic_parity_excess": False,
    "equalized_odds_excess": False,
    "f1_gap": False,
}


#: Degrees of freedom at which Student's t is the normal distribution.
_MANY = 1e9


def curve_values(
    counts: np.ndarray, group_names: Sequence[str], *, min_cell: int = 5, num_permutations: int = 200, seed: int = 0
) -> dict[str, np.ndarray]:
    """Counts (runs, b, g, c, c), the first of each run unweighted => name -> values (runs, b).

    Names: accuracy, f1, worst_f1, ``f1[group]``, and those of :data:`PARITY`. Means over classes; cells of fewer than
    ``min_cell`` images are left out. The chance level of an excess is that of the run's unweighted table.
    """
    metrics = metrics_from_counts(counts, over_classes="mean", min_cell=min_cell)
    worst = metrics_from_counts(counts, over_classes="worst", min_cell=min_cell)
    f1 = metrics["group_f1"]
    permuted = np.stack([permuted_counts(one[0], num_permutations, seed) for one in counts])
    null = metrics_from_counts(permuted, over_classes="mean", min_cell=min_cell)
    low, high = np.fmin.reduce(f1, axis=-1), np.fmax.reduce(f1, axis=-1)
    values = {
        "accuracy": metrics["accuracy"],
        "f1": metrics["macro_f1"],
        "worst_f1": low,
        "f1_gap": high - low,
        "demographic_parity_ratio": metrics["demographic_parity_ratio"],
        "demographic_parity_ratio_min": worst["demographic_parity_ratio"],
        "demographic_parity_difference": metrics["demographic_parity_difference"],
        "equalized_odds_difference": metrics["equalized_odds_difference"],
    }
    for name in ("demographic_parity", "equalized_odds"):
        chance = null[f"{name}_difference"].mean(axis=1, keepdims=True)
        values[f"{name}_excess"] = values[f"{name}_difference"] - chance
    return values | {f"f1[{group}]": f1[..., i] for i, group in enumerate(group_names)}


def slope_weights(shares: Sequence[float] | np.ndarray) -> np.ndarray:
    """Weights (s,) whose product with the values of a curve is its least-squares slope."""
    p = np.asarray(shares, dtype=float)
    centred: np.ndarray = p - p.mean()
    if not (centred**2).sum() > 0:
        raise ShapeError(f"A slope needs two different shares; got {shares}.")
    return np.asarray(centred / (centred**2).sum())


def gain_weights(shares: Sequence[float] | np.ndarray, num_groups: int) -> np.ndarray:
    """Weights (s,) of M(p = 1/K) - M(p = smallest share); between two shares the curve is a straight line."""
    p = np.asarray(shares, dtype=float)
    balanced = 1.0 / num_groups
    if not p.min() < balanced <= p.max() + 1e-12:
        raise ShapeError(f"The balanced share {balanced:g} lies outside the shares {shares}.")
    weights = np.array([np.interp(balanced, p, row) for row in np.eye(len(p))])
    weights[int(p.argmin())] -= 1.0
    return weights


@dataclass(frozen=True)
class Contrast:
    """A contrast of curves with its uncertainty.

    Attributes:
        value: mean over repeats.
        low, high: t interval.
        p_greater: one-sided p-value against "not above 0".
        p_less: one-sided p-value against "not below 0".
        standard_error, freedom: of the t distribution (Satterthwaite).
    """

    value: float
    low: float
    high: float
    p_greater: float
    p_less: float
    standard_error: float
    freedom: float


def contrast(points: np.ndarray, resampled: np.ndarray, weights: np.ndarray, *, level: float = 0.95) -> Contrast:
    """Estimate a contrast from repeats that are judged on one test set.

    Args:
        points: values (r, s) by repeat and share.
        resampled: the same for b bootstrap draws of test people, (b, r, s), the same draws in every cell.
        weights: (s,).
        level: of the interval.

    The variance of the mean over repeats is V_repeat / r + V_test - V_both / r: repeats differ by their draw of
    images, by their seed, and by how these meet the test set; the bootstrap of the mean over repeats sees the test
    set and that meeting once more, which is taken off (two-way clustering: Cameron, Gelbach, Miller, 2011). Degrees of
    freedom are Satterthwaite's: r - 1 for what repeats show, b - 1 for what b draws of the bootstrap show.
    """
    from scipy.special import stdtr, stdtrit

    per_repeat = points @ weights  # (r,)
    draws = resampled @ weights  # (b, r)
    r = len(per_repeat)
    if resampled.shape[1:] != points.shape:
        raise ShapeError(f"`resampled` must be (b, {points.shape[0]}, {points.shape[1]}); got {resampled.shape}.")
    value = float(per_repeat.mean())
    of_mean = float(draws.mean(1).var(ddof=1)) if len(draws) > 1 else 0.0
    drawn = float(max(len(draws) - 1, 1))
    if r == 1:
        variance, freedom = of_mean, drawn
    else:
        repeats = float(per_repeat.var(ddof=1)) / r
        of_each = float(draws.var(axis=0, ddof=1).mean()) if len(draws) > 1 else 0.0
        meeting = max(of_each - of_mean, 0.0) / (r - 1)
        test = max(of_mean - meeting, 0.0)
        variance = repeats + test
        spread = repeats**2 / (r - 1) + test**2 / drawn
        freedom = variance**2 / spread if spread > 0 else _MANY
    error = float(np.sqrt(variance))
    if error == 0:
        certain = (0.0 if value > 0 else 1.0), (0.0 if value < 0 else 1.0)
        return Contrast(value, value, value, *certain, 0.0, freedom)
    half = float(stdtrit(freedom, (1 + level) / 2)) * error
    statistic = value / error
    return Contrast(
        value,
        value - half,
        value + half,
        float(stdtr(freedom, -statistic)),
        float(stdtr(freedom, statistic)),
        error,
        freedom,
    )


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Holm's correction: asking several groups must not make a chance finding more likely.

    Example:
        >>> holm({"a": 0.01, "b": 0.04, "c": 0.03})
        {'a': 0.03, 'b': 0.06, 'c': 0.06}
    """
    corrected, running = {}, 0.0
    ordered = sorted(p_values.items(), key=lambda item: item[1])
    for place, (name, p) in enumerate(ordered):
        running = max(running, min(1.0, p * (len(ordered) - place)))
        corrected[name] = running
    return {name: corrected[name] for name in p_values}


def exchange_rate(
    real_counts: Sequence[float] | np.ndarray,
    real: np.ndarray,
    edited_counts: Sequence[float] | np.ndarray,
    edited: np.ndarray,
    *,
    level: float = 0.95,
) -> tuple[float, float, float]:
    """How many real images one edited image is worth, at the largest number of edits.

    Both curves are fitted as a + b log(1 + m) in the number m of added images, with one intercept (no image added is
    the same training set); the rate is the number of real images that gives the edits' F1, divided by the edits.

    Args:
        real_counts, edited_counts: added images (s,), ascending from 0.
        real, edited: F1 of the group (r, s), repeats paired.

    Returns:
        (rate, low, high); the interval is a jackknife over repeats on the log scale. NaN where real images do not
        help, so that nothing can be worth them; 0 where edits do not help.
    """
    from scipy.special import stdtrit

    def rate(a: np.ndarray, b: np.ndarray) -> float:
        x, y = np.log1p(real_counts), np.log1p(edited_counts)
        ones = np.ones(len(x) + len(y))
        design = np.stack([ones, np.r_[x, np.zeros(len(y))], np.r_[np.zeros(len(x)), y]], axis=1)
        _, slope_real, slope_edited = np.linalg.lstsq(design, np.r_[a, b], rcond=None)[0]
        if slope_real <= 0:
            return float("nan")
        largest = float(edited_counts[-1])
        worth = min(max(slope_edited / slope_real, 0.0) * np.log1p(largest), 50.0)
        return float(np.expm1(worth) / largest)

    value = rate(real.mean(0), edited.mean(0))
    r = len(real)
    if r < 3 or not value > 0:
        return value, float("nan"), float("nan")
    left_out = np.array([rate(np.delete(real, i, 0).mean(0), np.delete(edited, i, 0).mean(0)) for i in range(r)])
    if not (left_out > 0).all():
        return value, float("nan"), float("nan")
    logs = np.log(left_out)
    half = float(stdtrit(r - 1, (1 + level) / 2) * np.sqrt((r - 1) / r * ((logs - logs.mean()) ** 2).sum()))
    return value, value * float(np.exp(-half)), value * float(np.exp(half))
