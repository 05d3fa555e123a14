"""Intervals of group metrics that hold for any number of groups.

A largest-minus-smallest gap is above the true one by chance alone, the more so the more groups there are, and its
resamples are above it once more. So a gap is not resampled as it is. For each gap that could be true, groups are moved
to that gap, chance is added as the bootstrap shows it, and the gap is kept if what was observed is not unusual there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from scipy.stats import chi2

from vlbias.fairness.counts import Counts, tally
from vlbias.fairness.inference import MAX_UNDEFINED, interval, person_weights
from vlbias.fairness.metrics import METRICS, metrics_from_counts, metrics_from_rates, rates, share

__all__ = ["Fits", "Resamples", "intervals", "resampled_items", "resampled_table"]

#: Rates that each metric compares.
COMPARED = {
    "accuracy_gap": ("accuracy",),
    "equal_opportunity_difference": ("tpr",),
    "equalized_odds_difference": ("tpr", "fpr"),
    "demographic_parity_difference": ("selection",),
    "demographic_parity_ratio": ("selection",),
}
#: The rate whose smallest value each takes.
WORST = {"worst_group_accuracy": "accuracy", "worst_cell_accuracy": "tpr"}
#: Standard errors within which groups are taken to be level with the highest or lowest one, where it matters.
LEVEL_WITH = 2.0
#: Standard errors beyond the observed gap up to which gaps are tried.
REACH = 5.0
#: Spreads of seeds that are less likely than this are left out of account: they have no bound.
RAREST = 0.005


#: Counts (..., g, y, p) => numbers by name (..., what is left of the shape).
ValuesOf = Callable[[np.ndarray], Mapping[str, np.ndarray]]


@dataclass(frozen=True)
class Resamples:
    """Resampled counts and what they vary about.

    Attributes:
        draws: counts (b, g, y, p).
        centre: their expectation (g, y, p).
        scale: by which their deviations are to be enlarged (g,); NaN for a group of one person.
    """

    draws: np.ndarray
    centre: np.ndarray
    scale: np.ndarray


def _outcomes(n: np.ndarray) -> np.ndarray:
    """What items of each class are predicted, all groups together (y, p); nothing is impossible."""
    total = n.sum(0)
    return (total + 1 / n.shape[-1]) / (total.sum(-1, keepdims=True) + 1)


def resampled_table(n: np.ndarray, num_resamples: int, seed: int) -> Resamples:
    """Items drawn with replacement within each group: how many of each class, and what those of a class are predicted.

    One item like those of all groups is added to each cell. Without it, a cell in which all are right would have no
    uncertainty. No cell is empty in a resample: what its items are predicted is drawn apart from how many they are.
    """
    rng = np.random.default_rng(seed)
    support = n.sum(-1)
    p = (n + _outcomes(n)) / (support + 1)[..., None]
    predicted = rng.multinomial(support.astype(np.int64), p, size=(num_resamples, *support.shape))
    size = support.sum(1)
    classes = share(support, size[:, None])
    drawn = rng.multinomial(size.astype(np.int64), np.nan_to_num(classes, nan=1 / n.shape[1]), (num_resamples, len(n)))
    draws = share(predicted, support[..., None]) * np.maximum(drawn, 1e-9)[..., None]
    return Resamples(np.nan_to_num(draws), support[..., None] * p, np.where(size > 1, 1.0, np.nan))


def resampled_items(
    counts: Counts, persons: np.ndarray, weights: np.ndarray, num_resamples: int, seed: int
) -> Resamples:
    """People drawn with replacement within each group, with all of their items; one person like all was added.

    Args:
        counts: with the items that were counted.
        persons: codes (n,).
        weights: of items (n,).
        num_resamples, seed: of the drawing.
    """
    group, true, _ = counts.items
    count = partial(tally, num_groups=len(counts.groups), num_classes=len(counts.classes))
    n = count(*counts.items, weights=weights)
    drawn = [  # in parts, for memory
        count(*counts.items, weights=weights * person_weights(persons, group, size, [seed, number]))
        for number, size in enumerate(_parts(num_resamples, len(group)))
    ]
    people = np.unique(np.stack([persons, group]), axis=1)[1]
    num_people = np.bincount(people, minlength=len(n)).astype(float)
    in_cells = np.unique(np.stack([persons, group, true]), axis=1)
    num_in_cells = count(in_cells[1], in_cells[2], in_cells[2]).sum(-1)
    # The items that a person has in a cell, on average, with the outcomes of one item like those of all groups.
    size = np.nan_to_num(share(n.sum(-1), num_in_cells))[..., None]
    p = np.broadcast_to(_outcomes(n), n.shape)
    added = np.random.default_rng([seed, num_resamples]).multinomial(1, p, size=(num_resamples, *n.shape[:2]))
    scale = share(num_people, num_people - 1)
    return Resamples(np.concatenate(drawn) + size * added, n + size * p, scale)


def _parts(num: int, num_items: int, most: int = 20_000_000) -> list[int]:
    size = max(1, most // max(num_items, 1))
    return [min(size, num - start) for start in range(0, num, size)]


@dataclass(frozen=True)
class Fits:
    """Classifiers that were trained alike, from several seeds, and tested on the same items.

    Attributes:
        n: counts (s, g, y, p), weighted where items are.
        resamples: of each classifier's; all of them meet the same items.
        picked: which classifier stands in each place of a resample (b, s).
        luck: numbers in (0, 1) that say how much more, or less, seeds differ in a resample than these do (b,).
    """

    n: np.ndarray
    resamples: tuple[Resamples, ...]
    picked: np.ndarray
    luck: np.ndarray

    @classmethod
    def of_one(cls, n: np.ndarray, resamples: Resamples) -> Fits:
        """One classifier (g, y, p), about which alone is spoken."""
        num_resamples = len(resamples.draws)
        return cls(n[None], (resamples,), np.zeros((num_resamples, 1), dtype=np.int64), np.full(num_resamples, 0.5))

    @classmethod
    def of_seeds(cls, n: np.ndarray, resamples: tuple[Resamples, ...], seed: int) -> Fits:
        """Several, of which others could have come as well: they are drawn with replacement.

        Each resample has their spread as one of those that may be behind it, so that intervals are Student's.
        """
        num_resamples, num_seeds = len(resamples[0].draws), len(n)
        rng = np.random.default_rng([seed, num_seeds])
        picked = rng.integers(num_seeds, size=(num_resamples, num_seeds))
        return cls(n, resamples, picked, rng.random(num_resamples))

    def _doubt(self, num_spreads: int) -> np.ndarray:
        """Spreads that may be behind that of the seeds (b,), over theirs, if so many rows of them tell it."""
        freedom = (len(self.n) - 1) * num_spreads
        if freedom == 0:
            return np.ones(len(self.luck))
        return np.sqrt(freedom / chi2.ppf(np.maximum(self.luck, RAREST), freedom))

    def deviations(self, values_of: ValuesOf) -> dict[str, np.ndarray]:
        """By how much means over classifiers are off by chance, with other items and other seeds.

        Args:
            values_of: counts (..., g, y, p) => name -> numbers (..., what is left of the shape).

        Returns:
            Name -> deviations (b, ...).
        """
        return {name: varied.mean(1) for name, varied in self._varied(values_of, self._doubt(1)).items()}

    def _varied(self, values_of: ValuesOf, doubt: np.ndarray) -> dict[str, np.ndarray]:
        """Each classifier's own deviation from their mean (b, s, ...)."""
        known = values_of(self.n)
        items = [(values_of(one.draws), values_of(one.centre)) for one in self.resamples]
        # Few seeds vary less about their own mean than about that of all.
        widened = np.sqrt(len(self.n) / max(len(self.n) - 1, 1))
        found = {}
        for name, values in known.items():
            by_items = np.stack([drawn[name] - centre[name] for drawn, centre in items])
            by_seeds = (widened * (values - values.mean(0)))[self.picked]
            wide = doubt.reshape(-1, *[1] * (by_seeds.ndim - 1))
            found[name] = by_items[self.picked, np.arange(len(self.picked))[:, None]] + wide * by_seeds
        return found

    def rate_errors(self) -> np.ndarray:
        """Deviations of the rates (b, s, g, r). Where groups are compared, each but one tells how much seeds differ."""
        num_groups = int((self.n.sum((0, 2, 3)) > 0).sum())
        doubt = self._doubt(max(num_groups - 1, 1))
        found = self._varied(lambda n: {"rates": _stacked(rates(n, 0))}, doubt)
        return found["rates"] * self.resamples[0].scale[:, None]


def intervals(fits: Fits, *, sizes: np.ndarray, level: float, how: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    """An interval of each of :data:`METRICS`, of its mean over classifiers; NaN where it cannot be known.

    With several classifiers a gap is that between the rates that groups have on average over seeds.

    Args:
        fits: counts and their resamples.
        sizes: counts (g, y, p) of items; they decide what is left out.
        level: coverage, in (0, 1).
        how: options of :func:`metrics_from_counts`.
    """
    found = dict.fromkeys(METRICS, (float("nan"), float("nan")))
    if not np.isfinite(fits.resamples[0].scale[sizes.sum((1, 2)) > 0]).all():
        return found
    known = metrics_from_counts(fits.n, **how, observed=sizes)
    values = {name: float(known[name].mean()) for name in METRICS}
    drawn = fits.deviations(lambda n: metrics_from_counts(n, **how, observed=sizes))
    for name in METRICS:
        if name not in COMPARED and name not in WORST:
            low, high = interval(drawn[name] + values[name], level)
            found[name] = _within(low), _within(high)
    family = _Family.of(fits, sizes, how)
    return found | family.intervals({name: values[name] for name in (*COMPARED, *WORST)}, 1 - level)


def _within(x: float) -> float:
    return float(np.clip(x, 0.0, 1.0))


# ---------------------------------------------------------------------------------------------------------------------
# All rates of a table as one array (..., g, r): tpr, fpr and selection of each class, then accuracy.


def _stacked(rate: Mapping[str, np.ndarray]) -> np.ndarray:
    parts = [rate["tpr"], rate["fpr"], rate["selection"], rate["accuracy"][..., None]]
    return np.concatenate(parts, axis=-1)


def _unstacked(x: np.ndarray) -> dict[str, np.ndarray]:
    tpr, fpr, selection = np.split(x[..., :-1], 3, axis=-1)
    return {"tpr": tpr, "fpr": fpr, "selection": selection, "accuracy": x[..., -1]}


def _place_of(rate: str, num_rates: int) -> tuple[Any, slice]:
    """Where a rate stands in what :func:`_stacked` gives."""
    num_classes = (num_rates - 1) // 3
    return ..., {"tpr": slice(0, num_classes), "accuracy": slice(-1, None)}[rate]


@dataclass(frozen=True)
class _Family:
    """Rates of groups (g, r) moved along one line: from no difference over what was observed to larger differences.

    Attributes:
        pooled: rates of all groups together (1, r).
        away: what was observed minus that.
        error: deviations of the resampled rates of each classifier (b, s, g, r), and the standard error of their mean
            (g, r).
        variance: of one item where the deviations were drawn (g, r).
        whole: items that each rate rests on.
        known: rates that are not left out.
        how: options of :func:`metrics_from_rates`.
    """

    pooled: np.ndarray
    away: np.ndarray
    error: np.ndarray
    standard_error: np.ndarray
    variance: np.ndarray
    whole: np.ndarray
    known: np.ndarray
    how: Mapping[str, Any]

    @classmethod
    def of(cls, fits: Fits, sizes: np.ndarray, how: Mapping[str, Any]) -> _Family:
        """The line through these counts."""
        options = {key: value for key, value in how.items() if key != "min_cell"}
        known = ~np.isnan(_stacked(rates(sizes, how["min_cell"])))
        n, centre = fits.n.mean(0), np.mean([_stacked(rates(one.centre, 0)) for one in fits.resamples], axis=0)
        error = fits.rate_errors()
        pooled = _stacked(rates(n.sum(0, keepdims=True), 0))
        whole = np.where(known, _wholes(sizes), 1.0)
        variance = np.maximum(centre * (1 - centre), 0.25 / whole)
        standard_error = np.where(known, np.maximum(_deviation(error.mean(1)), 1e-9), 1.0)
        away = np.where(known, _stacked(rates(n, 0)) - pooled, 0.0)
        # Groups that are exactly level get a direction, too small to be seen, in which they can part.
        sign = np.where(np.arange(len(n)) % 2 == 0, 1.0, -1.0)[:, None]
        away = away + 1e-6 * sign * standard_error * known
        return cls(pooled, away, error, standard_error, variance, whole, known, options)

    def intervals(self, values: Mapping[str, float], alpha: float) -> dict[str, tuple[float, float]]:
        """Those of the gaps, the ratio and the worst rates."""
        places = self._places()
        truth = {name: np.empty(len(places)) for name in values}
        plain = {name: np.empty((len(places), len(self.error))) for name in values}
        level = {name: np.empty((len(places), len(self.error))) for name in COMPARED}
        for i, place in enumerate(places):
            at = self._at(place)
            of_truth, of_plain, of_level = self._metrics(at), self._drawn(at), self._drawn(self._levelled(at))
            for name in values:
                truth[name][i], plain[name][i] = of_truth[name], of_plain[name]
                if name in level:
                    level[name][i] = of_level[name]
        found = {}
        for name, value in values.items():
            if np.isnan(value) or np.isnan(plain[name]).mean() > MAX_UNDEFINED:
                found[name] = float("nan"), float("nan")
            elif name in WORST:
                found[name] = self._worst(WORST[name], value, alpha)
            elif METRICS[name].higher_is_better:
                kept = _kept(1 - value, 1 - truth[name], 1 - plain[name], 1 - level[name], alpha, self._step(name))
                found[name] = 1 - kept[1], 1 - kept[0]
            else:
                found[name] = _kept(value, truth[name], plain[name], level[name], alpha, self._step(name))
        return found

    def _worst(self, rate: str, value: float, alpha: float) -> tuple[float, float]:
        """Least and largest smallest rate at which the observed one is not unusual.

        The more rates are as low as the lowest, the further below it lies what is observed. So for an observed value to
        be too low, all rates that may be the lowest are; for it to be too high, one is.
        """
        here = np.zeros_like(self.known)
        here[_place_of(rate, here.shape[-1])] = True
        here &= self.known
        observed, error = (self.pooled + self.away)[here], self.error[..., here]
        scale = 1 / np.sqrt(self.variance[here])
        whole, standard_error = self.whole[here], self.standard_error[here]
        lowest = int(np.argmin(observed))

        def drawn(at: np.ndarray) -> np.ndarray:
            one_item = np.maximum(at * (1 - at), 0.25 / whole)
            moved = np.clip(at + error * np.sqrt(one_item) * scale, 0.0, 1.0)
            return moved.min(-1).mean(-1)

        reach = REACH * float(standard_error[np.abs(observed - observed[lowest]) < 2 * standard_error].max())
        places = np.unique(np.clip(np.append(value + reach * np.linspace(-1, 1, 41), value), 0.0, 1.0))
        over, under = np.empty(len(places)), np.empty(len(places))
        for i, place in enumerate(places):
            one = np.maximum(observed, place)
            one[lowest] = place
            near = one - place < LEVEL_WITH * np.sqrt(2) * standard_error
            over[i] = np.mean(drawn(one) >= value - 1e-12) - alpha / 2
            under[i] = np.mean(drawn(np.where(near, place, one)) <= value + 1e-12) - alpha / 2
        low = _crossing(places, over, int(np.flatnonzero(over > 0)[0]), -1) if (over > 0).any() else value
        high = _crossing(places, under, int(np.flatnonzero(under > 0)[-1]), 1) if (under > 0).any() else value
        return min(low, value), max(high, value)

    def _places(self) -> np.ndarray:
        """Places on the line: 0 no difference, 1 as observed, 2 differences larger by :data:`REACH` errors."""
        most = float(np.max(np.abs(self.away) / self.standard_error))
        near = 1 - np.arange(1, 14) * 0.4 / max(most, 1e-9)
        return np.unique(np.concatenate([np.linspace(0, 1, 9), near[near > 0], np.linspace(1, 2, 15)]))

    def _at(self, place: float) -> np.ndarray:
        unit = np.max(np.abs(self.away) / self.standard_error, axis=0)
        further = max(place - 1, 0.0) * REACH / np.where(unit > 0, unit, 1.0)
        return np.clip(self.pooled + (min(place, 1.0) + further) * self.away, 0.0, 1.0)

    def _levelled(self, at: np.ndarray) -> np.ndarray:
        """The same with groups that nearly reach the highest or the lowest one put level with it.

        Where several groups share the end, chance alone makes a large gap; what looks apart may be such a case.
        """
        top = np.max(at, axis=0, initial=-np.inf, where=self.known)
        bottom = np.min(at, axis=0, initial=np.inf, where=self.known)
        near = LEVEL_WITH * np.sqrt(2) * self.standard_error
        is_high = top - at <= at - bottom
        raised = np.where(is_high & (top - at < near), top, at)
        return np.where(self.known, np.where(~is_high & (at - bottom < near), bottom, raised), at)

    def _drawn(self, at: np.ndarray) -> dict[str, np.ndarray]:
        one_item = np.maximum(at * (1 - at), 0.25 / self.whole)
        drawn = self._metrics(np.clip(at + self.error * np.sqrt(one_item / self.variance), 0.0, 1.0))
        return {name: values.mean(-1) for name, values in drawn.items()}

    def _metrics(self, x: np.ndarray) -> dict[str, np.ndarray]:
        return metrics_from_rates(_unstacked(x), _unstacked(self.known), **self.how)

    def _step(self, name: str) -> float:
        """Half of the step in which the rates of a metric move, on average over classifiers."""
        whole, known = _unstacked(self.whole), _unstacked(self.known)
        most = [np.max(whole[rate], axis=0, initial=1.0, where=known[rate]) for rate in COMPARED[name]]
        return 0.5 / (self.error.shape[1] * float(min(np.min(one) for one in most)))


def _deviation(x: np.ndarray) -> np.ndarray:
    known = ~np.isnan(x)
    mean = share(np.where(known, x, 0).sum(0), known.sum(0))
    return np.nan_to_num(np.sqrt(share((np.where(known, x - mean, 0) ** 2).sum(0), known.sum(0))))


def _wholes(sizes: np.ndarray) -> np.ndarray:
    """Items that each rate rests on (g, r)."""
    support = sizes.sum(-1)
    size = support.sum(-1, keepdims=True)
    return np.maximum(np.concatenate([support, size - support, size + 0 * support, size], axis=-1), 1.0)


def _kept(
    value: float, truth: np.ndarray, plain: np.ndarray, level: np.ndarray, alpha: float, step: float
) -> tuple[float, float]:
    """Least and largest gap at which the observed one is not unusual.

    Args:
        value: observed.
        truth: gap at each place (l,), from none to the largest.
        plain, level: what would be observed there (l, b), without and with groups put level.
        alpha: one minus the coverage.
        step: half of the steps in which gaps are observed.
    """
    above = np.nanmean(np.where(np.isnan(level), np.nan, level >= value - 1e-12), axis=1)
    below = np.nanmean(np.where(np.isnan(plain), np.nan, plain <= value + step), axis=1)
    # Where a gap can hardly be told from none, nothing observed is too small for it, and all of alpha lies above.
    none = np.sort(plain[0][~np.isnan(plain[0])])
    rank = [np.searchsorted(none, row[~np.isnan(row)], side) for row in plain for side in ("left", "right")]
    apart = np.array([one.mean() for one in rank]).reshape(-1, 2).mean(1) / max(len(none), 1)
    of_below = alpha / 2 * np.clip(2 * apart - 1, 0, 1)
    over, under = above - (alpha - of_below), below - of_below  # both above 0 where the gap is kept
    kept = np.flatnonzero((over > 0) & (under > 0))
    if not len(kept):
        kept = np.array([int(np.argmax(np.minimum(over, under)))])
    low = _crossing(truth, over, kept[0], -1)
    high = _crossing(truth, under, kept[-1], 1)
    return min(low, value), max(high, value)


def _crossing(truth: np.ndarray, margin: np.ndarray, inside: int, towards: int) -> float:
    """Where a margin reaches 0 between the last place that is kept and the next one."""
    outside = inside + towards
    if not 0 <= outside < len(truth) or margin[outside] >= margin[inside]:
        return float(truth[inside])
    part = np.clip(margin[inside] / (margin[inside] - margin[outside]), 0, 1)
    return float(truth[inside] + part * (truth[outside] - truth[inside]))
