"""From predictions to curves, slopes and verdicts, with their uncertainty.

Everything asked of a curve here is linear in its points (a slope, a difference of two compositions), so it is a
contrast: weights over the shares. The contrast is taken within each repeat, whose runs share their draw of images,
and its variance has two sources that must not be counted twice: which images and seed a repeat had, and which people
are in the test set.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from vlbias.errors import ShapeError
from vlbias.fairness import metrics_from_counts
from vlbias.fairness.metrics import gap, mean_known

__all__ = ["PARITY", "Contrast", "contrast", "curve_values", "exchange_rate", "gain_weights", "holm", "slope_weights"]

#: A curve is followed to so many times the largest number of images on it.
_BEYOND = 10.0

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


def curve_values(
    counts: np.ndarray, permuted: np.ndarray, group_names: Sequence[str], *, min_cell: int = 5
) -> dict[str, np.ndarray]:
    """Counts of runs and their resamples => name -> values (runs, b).

    Names: accuracy, f1, worst_f1, ``f1[group]``, and those of :data:`PARITY`. Means over classes; rates that rest on
    fewer than ``min_cell`` test images are left out, the same ones in every resample.

    Args:
        counts: (runs, b, g, c, c), the first of each run unweighted.
        permuted: counts (runs, permutations, g, c, c) with groups dealt anew, whose mean is the chance level.
        group_names: (g,).
        min_cell: see above.
    """
    options: dict[str, Any] = {"min_cell": min_cell, "observed": counts[:, :1]}
    metrics = metrics_from_counts(counts, over_classes="mean", **options)
    worst = metrics_from_counts(counts, over_classes="worst", **options)
    null = metrics_from_counts(permuted, over_classes="mean", **options)
    f1 = metrics["group_f1"]
    values = {
        "accuracy": metrics["accuracy"],
        "f1": metrics["macro_f1"],
        "worst_f1": f1.min(-1),
        "f1_gap": gap(f1, ~np.isnan(f1[:, :1]), -1),
        "demographic_parity_ratio": metrics["demographic_parity_ratio"],
        "demographic_parity_ratio_min": worst["demographic_parity_ratio"],
        "demographic_parity_difference": metrics["demographic_parity_difference"],
        "equalized_odds_difference": metrics["equalized_odds_difference"],
    }
    for name in ("demographic_parity", "equalized_odds"):
        chance = mean_known(null[f"{name}_difference"], 1)[:, None]
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
    """Weights of M(p = 1/K) - M(p = smallest share), like ``shares``; between two shares the curve is a straight line.

    Args:
        shares: (s,), or (1 + b, s) with draws, of which the balanced share may lie outside.
        num_groups: K.
    """
    p = np.asarray(shares, dtype=float)
    balanced, first = 1.0 / num_groups, np.atleast_2d(p)[0]
    if not first.min() < balanced <= first.max() + 1e-12:
        raise ShapeError(f"The balanced share {balanced:g} lies outside the shares {first}.")
    rows = [[np.interp(balanced, row, one) for one in np.eye(len(row))] for row in np.atleast_2d(p)]
    weights = np.array(rows) - np.eye(p.shape[-1])[first.argmin()]
    return weights.reshape(p.shape)


@dataclass(frozen=True)
class Contrast:
    """A contrast of curves with its uncertainty.

    Attributes:
        value: mean over repeats.
        low, high: its interval; NaN where one repeat does not allow one.
        p_greater: one-sided p-value against "not above 0".
        p_less: one-sided p-value against "not below 0".
        standard_error: of ``value``, from repeats and test people together.
    """

    value: float
    low: float
    high: float
    p_greater: float
    p_less: float
    standard_error: float

    def __neg__(self) -> Contrast:
        return Contrast(-self.value, -self.high, -self.low, self.p_less, self.p_greater, self.standard_error)

    @property
    def p_either(self) -> float:
        """Two-sided p-value against 0."""
        return float(np.minimum(1.0, 2 * np.minimum(self.p_greater, self.p_less)))


def contrast(points: np.ndarray, resampled: np.ndarray, weights: np.ndarray, *, level: float = 0.95) -> Contrast:
    """Estimate a contrast from repeats that are tested on one test set.

    Args:
        points: values (r, s) by repeat and share.
        resampled: the same for b bootstrap draws of test people, (b, r, s), the same draws in every cell.
        weights: (s,), or (1 + b, s) where the draws have weights of their own.
        level: of the interval.

    Returns:
        The contrast. With one repeat nothing is known of the luck of its draw and seed, so there is no interval and
        no p-value.

    The variance of the mean over repeats is V_repeat / r + V_test - V_both / r: repeats differ by their draw of
    images, by their seed, and by how these meet the test set; the bootstrap of the mean over repeats sees the test
    set and that meeting once more, which is taken off (two-way clustering: Cameron, Gelbach, Miller, 2011). The error
    is a sum of two, each of Student's t distribution: r - 1 degrees of freedom for what repeats show, b - 1 for what b
    draws show (Behrens and Fisher). One t with Satterthwaite's degrees of freedom claims too often with few repeats,
    as repeats that agree by chance make the test set look like the only source.
    """
    if resampled.shape[1:] != points.shape:
        raise ShapeError(f"`resampled` must be (b, {points.shape[0]}, {points.shape[1]}); got {resampled.shape}.")
    if weights.ndim == 1:
        weights = np.broadcast_to(weights, (1 + len(resampled), len(weights)))
    per_repeat = points @ weights[0]  # (r,)
    draws = np.einsum("brs,bs->br", resampled, weights[1:])
    r = len(per_repeat)
    value = float(per_repeat.mean())
    of_mean = float(draws.mean(1).var(ddof=1)) if len(draws) > 1 else 0.0
    if r == 1:
        nan = float("nan")
        return Contrast(value, nan, nan, nan, nan, float(np.sqrt(of_mean)))
    repeats = float(per_repeat.var(ddof=1)) / r
    of_each = float(draws.var(axis=0, ddof=1).mean()) if len(draws) > 1 else 0.0
    test = max(of_mean - max(of_each - of_mean, 0.0) / (r - 1), 0.0)
    if r <= _FEW_REPEATS:
        # So few may agree by chance; the mean cannot be surer than the test set and its meeting with them allow.
        test = max(test, of_mean - repeats)
    error = _Error(np.sqrt(repeats), r - 1, np.sqrt(test), max(len(draws) - 1, 1))
    half = error.quantile((1 + level) / 2)
    p_greater, p_less = error.beyond(value), error.beyond(-value)
    return Contrast(value, value - half, value + half, p_greater, p_less, float(np.hypot(error.repeats, error.test)))


#: Up to so many repeats, how they differ is no measure to rely on alone.
_FEW_REPEATS = 3


@lru_cache(maxsize=64)
def _middles(freedom: int, num: int = 1000) -> np.ndarray:
    """Student's t at the middles of ``num`` equally likely pieces."""
    from scipy.special import stdtrit

    return np.asarray(stdtrit(freedom, (np.arange(num) + 0.5) / num))


@dataclass(frozen=True)
class _Error:
    """The distribution of an error that is the sum of two, each its scale times a Student's t."""

    repeats: float
    repeats_freedom: int
    test: float
    test_freedom: int

    def beyond(self, x: float) -> float:
        """P(error >= x)."""
        from scipy.special import stdtr

        if not np.isfinite(x + self.repeats + self.test):
            return float("nan")
        if self.repeats == 0:
            return float(x <= 0) if self.test == 0 else float(stdtr(self.test_freedom, -x / self.test))
        # The error of the test set has the shorter tail, so it is the one that is taken at points.
        rest = x - self.test * _middles(self.test_freedom)
        return float(stdtr(self.repeats_freedom, -rest / self.repeats).mean())

    def quantile(self, p: float) -> float:
        """The x >= 0 with P(error <= x) = p, for p >= 1/2."""
        from scipy.optimize import brentq
        from scipy.special import stdtrit

        if not np.isfinite(self.repeats + self.test):
            return float("nan")
        largest = sum(
            scale * float(stdtrit(freedom, p))
            for scale, freedom in ((self.repeats, self.repeats_freedom), (self.test, self.test_freedom))
        )
        if 0 in (self.repeats, self.test):
            return largest
        if self.beyond(0.0) <= 1 - p:
            return 0.0
        # Twice as far, as `beyond` is taken at points and so a little coarse.
        return float(brentq(lambda x: self.beyond(x) - (1 - p), 0.0, 2 * largest))


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Holm's correction: asking several groups must not make a chance finding more likely.

    What is NaN was not tested: it stays NaN and is not corrected for.

    Example:
        >>> holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": float("nan")})
        {'a': 0.03, 'b': 0.06, 'c': 0.06, 'd': nan}
    """
    corrected, running = {}, 0.0
    ordered = sorted((p, name) for name, p in p_values.items() if not np.isnan(p))
    for place, (p, name) in enumerate(ordered):
        running = max(running, min(1.0, p * (len(ordered) - place)))
        corrected[name] = running
    return {name: corrected.get(name, float("nan")) for name in p_values}


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
        (rate, low, high); the interval is a jackknife over repeats on the log scale. NaN without edits, where real
        images do not help, so that nothing can be worth them, or so little that ten times as many as were tried would
        not do; 0 where edits do not help.
    """
    from scipy.special import stdtrit

    def rate(a: np.ndarray, b: np.ndarray) -> float:
        x, y = np.log1p(real_counts), np.log1p(edited_counts)
        ones = np.ones(len(x) + len(y))
        design = np.stack([ones, np.r_[x, np.zeros(len(y))], np.r_[np.zeros(len(x)), y]], axis=1)
        _, slope_real, slope_edited = np.linalg.lstsq(design, np.r_[a, b], rcond=None)[0]
        largest = float(edited_counts[-1])
        if slope_real <= 0 or largest <= 0:
            return float("nan")
        worth = max(slope_edited / slope_real, 0.0) * np.log1p(largest)
        # Real images that hardly help are a division by noise; the curve is not drawn so far out.
        beyond = worth > np.log1p(_BEYOND * float(real_counts[-1]))
        return float("nan") if beyond else float(np.expm1(worth) / largest)

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
