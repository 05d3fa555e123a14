"""Verification by group: are two pictures of one person? Accuracy in folds, and true accepts at few false ones.

The score of a pair is the cosine of its embeddings. A pair is accepted where the score lies above a threshold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike
from scipy import stats
from torch import nn
from torch.nn import functional as F

from vlbias.data.pairs import FacePairs
from vlbias.errors import ConfigError, ShapeError
from vlbias.images import to_float
from vlbias.networks import FaceNetwork
from vlbias.search.streaming import batches, hold
from vlbias.search.trainer import embed
from vlbias.settings import MAX_DRAWS, checked_number

__all__ = ["fold_thresholds", "tar_at_far", "verify"]

#: False accept rates that are reported.
FARS = (1e-3, 1e-4)
# Impostors from which the tail of their scores is read.
_TAIL = 20


def fold_thresholds(scores: np.ndarray, is_same: np.ndarray, folds: np.ndarray) -> dict[int, float]:
    """The threshold of each fold: that which classifies most of the *other* folds' pairs rightly.

    Args:
        scores: float (n,), of each pair.
        is_same: bool (n,), whether it shows one person.
        folds: int (n,).

    Returns:
        Fold => threshold; the middle of those that are equally good.

    Source: Huang et al. (2007), LFW's restricted protocol. InsightFace tries a grid of thresholds; here all are tried.

    Example:
        >>> scores, is_same = np.array([0.9, 0.8, 0.2, 0.1]), np.array([True, True, False, False])
        >>> fold_thresholds(scores, is_same, np.array([0, 1, 0, 1]))
        {0: 0.45, 1: 0.55}
    """
    return {
        int(fold): _best_threshold(scores[folds != fold], is_same[folds != fold]) for fold in np.unique(folds).tolist()
    }


def _best_threshold(scores: np.ndarray, is_same: np.ndarray) -> float:
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    # right answers if the first i pairs are accepted
    right = np.r_[0, np.cumsum(np.where(is_same[order], 1, -1))]
    # between equal scores no threshold fits
    right = np.where(np.r_[False, ranked[1:] == ranked[:-1], False], -len(scores) - 1, right)
    best = np.flatnonzero(right == right.max())
    edges = np.r_[ranked[0] + 1e-6, ranked, ranked[-1] - 1e-6]
    place = best[len(best) // 2]
    return float((edges[place] + edges[place + 1]) / 2)


def tar_at_far(genuine: np.ndarray, impostor: np.ndarray, far: float) -> float:
    """Share of genuine pairs that are accepted by the lowest threshold with at most ``far`` false accepts.

    Args:
        genuine: float (n,), scores of pairs of one person.
        impostor: float (m,), scores of pairs of two.
        far: highest share of impostors that may be accepted, in (0, 1).

    Returns:
        In [0, 1]; NaN where ``far * m`` is below 1: so rare an accept cannot be seen among m pairs.

    Example:
        >>> impostor = np.linspace(0, 0.6, 1000)
        >>> tar_at_far(np.array([0.7, 0.61, 0.6, 0.3]), impostor, 1e-3), tar_at_far(impostor, impostor, 1e-4)
        (0.75, nan)
    """
    allowed = far * len(impostor)
    if allowed < 1 - 1e-9:
        return float("nan")
    # 0.001 * 3000 is 3, whatever the rounding of the product says
    above = np.sort(impostor)[::-1][int(allowed + 1e-9)]
    return float((genuine > above).mean())


def verify(
    embeddings_or_model: ArrayLike | torch.Tensor | nn.Module | FaceNetwork,
    pairs: FacePairs,
    *,
    threshold: Literal["group", "common"] = "group",
    fars: Sequence[float] = FARS,
    level: float = 0.95,
    layout: str = "arcface",
    image_size: int | None = None,
    num_impostors: int = 0,
) -> pd.DataFrame:
    """Verification by group.

    Args:
        embeddings_or_model: embeddings (k, d) in the order of ``pairs.ids``; a module that maps images in [-1, 1]
            (b, 3, h, w) to embeddings; or a network of ``vlbias.networks``. A model sees both mirror images.
        pairs: from :func:`vlbias.data.pairs.load_pairs`.
        threshold: "group": each group has the thresholds that suit it, as the benchmarks publish it. "common": all
            groups have the same, as a system that is in use; false accepts are then counted over all groups.
        fars: false accept rates, in (0, 1).
        level: of the intervals.
        layout: how faces lie in the pictures, for a network of ``vlbias.networks`` (``.bin`` files: "arcface").
        image_size: side in pixels, for a module; ``None`` for its own ``image_size``, or 112.
        num_impostors: further pairs of two people that are drawn of the pictures of each group, for the false accepts
            alone: a rate of 1e-4 needs 10,000. Pairs must say who is shown.

    Returns:
        A row for each group: pairs, people (NaN where the file does not say), accuracy with ``_low`` and ``_high`` (NaN
        of a group that lacks pairs of one person or of two to choose a threshold on), and
        for each false accept rate ``tar_0.001`` with its interval and ``far_0.001``, the rate that the group has.
        ``.attrs``: ``summary`` (for each number the gap between groups and its interval), ``resampled`` (what was taken
        as independent), ``notes`` (what could not be measured, and why).

        Pairs share people. Where they are known, errors of pairs that share one are taken as dependent (the variance of
        dyads); otherwise the folds are taken as independent, and the interval is that of so many folds. The interval of
        a gap holds whenever those of all groups hold at once, so it is wide.

    Raises:
        ShapeError: another number of embeddings than pictures, or not finite.
        ConfigError: a rate or level outside of (0, 1), another threshold, or further impostors where nobody is known.
    """
    if threshold not in ("group", "common"):
        raise ConfigError(f"`threshold` must be 'group' or 'common'; got {threshold!r}.")
    checked_number("num_impostors", num_impostors, low=0, high=10 * MAX_DRAWS)
    if not all(0 < number < 1 for number in (*fars, level)):
        raise ConfigError(f"`fars` and `level` must lie in (0, 1); got {list(fars)} and {level}.")
    z = _embeddings(embeddings_or_model, pairs, layout, image_size)
    measured = _Measured(pairs, z, threshold == "common", level)
    more = _Measured(_more_impostors(pairs, num_impostors), z, threshold == "common", level)
    names = sorted(set(pairs.groups))
    columns = [measured.accuracy(names), *(column for far in fars for column in more.rates(names, far))]
    table = pd.DataFrame({key: values for column in columns for key, values in column.items()}, index=names)
    table.insert(0, "pairs", [int((pairs.groups == name).sum()) for name in names])
    table.insert(1, "people", [measured.num_people(name) for name in names])
    table.index.name = "group"
    table.attrs["resampled"] = "people" if pairs.people is not None else f"{len(np.unique(pairs.folds))} folds"
    table.attrs["notes"] = measured.notes + more.notes
    table.attrs["summary"] = measured.gaps | more.gaps
    return table


def _embeddings(
    model: ArrayLike | torch.Tensor | nn.Module | FaceNetwork, pairs: FacePairs, layout: str, image_size: int | None
) -> np.ndarray:
    """Unit vectors float64 (k, d)."""
    if isinstance(model, FaceNetwork):
        images = hold(pairs.pictures, pairs.ids, model.input.size)
        chunks = np.array_split(np.arange(len(pairs.ids)), -(-len(pairs.ids) // 64))
        parts = []
        for batch in batches([images], chunks):
            x = to_float(batch)
            parts.append(model.embeddings(x, layout=layout) + model.embeddings(x.flip(3), layout=layout))
        z: torch.Tensor | np.ndarray = torch.cat(parts)
    elif isinstance(model, nn.Module):
        size = image_size or int(getattr(model, "image_size", 112))
        device = next((p.device for p in model.parameters()), None)
        z = embed(model, hold(pairs.pictures, pairs.ids, size), device=device)
    else:
        z = model if isinstance(model, torch.Tensor) else np.asarray(model)
    z = torch.as_tensor(z).detach().cpu().double()
    if z.ndim != 2 or len(z) != len(pairs.ids):
        raise ShapeError(
            f"Expected embeddings ({len(pairs.ids)}, d), one per picture of the pairs; got {tuple(z.shape)}."
        )
    if not torch.isfinite(z).all():
        raise ShapeError("The embeddings are not finite. Did training diverge?")
    return F.normalize(z).numpy()


def _more_impostors(pairs: FacePairs, num_impostors: int) -> FacePairs:
    """The pairs and, of each group, further ones of two of its people, drawn at random, always the same."""
    if num_impostors == 0:
        return pairs
    if num_impostors < 0 or pairs.people is None:
        raise ConfigError(
            f"`num_impostors` must be >= 0, and above 0 only where {pairs.name} says who is shown; got {num_impostors}."
        )
    generator = np.random.default_rng(0)
    first, second, groups = [pairs.first], [pairs.second], [pairs.groups]
    people = dict(zip(np.r_[pairs.first, pairs.second].tolist(), pairs.people.T.ravel(), strict=True))
    for name in sorted(set(pairs.groups)):
        mine = pairs.groups == name
        images = np.unique(np.r_[pairs.first[mine], pairs.second[mine]])
        drawn = generator.choice(images, size=(2 * num_impostors, 2))
        differ = np.array([people[one] != people[other] for one, other in drawn.tolist()], dtype=bool)
        drawn = drawn[differ][:num_impostors]
        first.append(drawn[:, 0])
        second.append(drawn[:, 1])
        groups.append(np.full(len(drawn), name, dtype=object))
    numbers, others = np.concatenate(first), np.concatenate(second)
    num_new = len(numbers) - len(pairs)
    return replace(
        pairs,
        first=numbers,
        second=others,
        is_same=np.r_[pairs.is_same, np.zeros(num_new, dtype=bool)],
        folds=np.r_[pairs.folds, generator.choice(np.unique(pairs.folds), num_new)],
        groups=np.concatenate(groups),
        people=np.array(
            [[people[i], people[j]] for i, j in zip(numbers.tolist(), others.tolist(), strict=True)], object
        ),
    )


@dataclass(frozen=True)
class _Estimate:
    """A share with the interval that belongs to it: (value, low, high)."""

    value: float
    low: float
    high: float


_UNKNOWN = _Estimate(float("nan"), float("nan"), float("nan"))


class _Measured:
    """Scores of pairs and what follows from them, group by group."""

    def __init__(self, pairs: FacePairs, z: np.ndarray, is_common: bool, level: float):
        self.pairs, self.is_common, self.level = pairs, is_common, level
        self.scores = np.einsum("nd,nd->n", z[pairs.first], z[pairs.second])
        self.notes: list[str] = []
        self.gaps: dict[str, float] = {}

    def num_people(self, name: str) -> float:
        people = self.pairs.people
        return float("nan") if people is None else float(len(set(people[self.pairs.groups == name].ravel())))

    def accuracy(self, names: Sequence[str]) -> dict[str, list[float]]:
        """Accuracy of each group at the thresholds of its folds."""
        p = self.pairs
        common = fold_thresholds(self.scores, p.is_same, p.folds)

        known = {name: self._has_both_kinds(name) for name in names}
        self.notes += [
            f"The accuracy of {name} is not known: outside of each fold it needs pairs of one person and of two."
            for name in names
            if not known[name]
        ]

        def one(name: str, level: float) -> _Estimate:
            if not known[name]:
                return _UNKNOWN
            mine = p.groups == name
            folds = p.folds[mine]
            found = common if self.is_common else fold_thresholds(self.scores[mine], p.is_same[mine], folds)
            accepted = self.scores[mine] > np.array([found[int(fold)] for fold in folds])
            right = accepted == p.is_same[mine]
            # had each fold been left out of the choice altogether: a jackknife of the thresholds
            moved = [((self.scores[mine] > value) == p.is_same[mine]).mean() for value in found.values()]
            chance = (len(moved) - 1) * float(np.var(moved))
            return self._share(right, mine, level, chance)

        return self._column("accuracy", names, one)

    def _has_both_kinds(self, name: str) -> bool:
        """Whether a group has pairs of one person and of two wherever a threshold is chosen: outside of each fold."""
        p, mine = self.pairs, self.pairs.groups == name
        return all(len(set(p.is_same[mine & (p.folds != fold)].tolist())) == 2 for fold in set(p.folds[mine].tolist()))

    def rates(self, names: Sequence[str], far: float) -> list[dict[str, list[float]]]:
        """True accepts of each group, and the false ones that go with them."""
        p = self.pairs
        counts = {name: int((~p.is_same & (p.groups == name)).sum()) for name in names}
        available = sum(counts.values()) if self.is_common else min(counts.values())
        if far * available < 1 - 1e-9:
            self.notes.append(f"FAR {far:g} needs {round(1 / far):,} pairs of two people; there are {available:,}.")

        def impostors(name: str) -> np.ndarray:
            return ~p.is_same & (True if self.is_common else p.groups == name)

        def true_accepts(name: str, level: float) -> _Estimate:
            genuine, others = p.is_same & (p.groups == name), impostors(name)
            ranked = np.sort(self.scores[others])[::-1]
            allowed = far * len(ranked)
            if allowed < 1 - 1e-9 or not genuine.any():
                return _UNKNOWN
            above = ranked[int(allowed + 1e-9)]
            found = self._share(self.scores[genuine] > above, genuine, level)
            # how many impostors pass at this rate is chance too: the threshold might as well be one of these
            highest, lowest = self._thresholds(others, ranked, far, level)
            strict, lax = (float((self.scores[genuine] > bound).mean()) for bound in (highest, lowest))
            low = found.value - np.hypot(found.value - found.low, found.value - min(strict, found.value))
            high = found.value + np.hypot(found.high - found.value, max(lax, found.value) - found.value)
            return _Estimate(found.value, max(float(low), 0.0), min(float(high), 1.0))

        def false_accepts(name: str) -> float:
            ranked = np.sort(self.scores[impostors(name)])[::-1]
            allowed = int(far * len(ranked) + 1e-9)
            if allowed < 1:
                return float("nan")
            mine = self.scores[~p.is_same & (p.groups == name)]
            return float((mine > ranked[min(allowed, len(ranked) - 1)]).mean()) if len(mine) else float("nan")

        return [self._column(f"tar_{far:g}", names, true_accepts), {f"far_{far:g}": [false_accepts(n) for n in names]}]

    def _column(self, key: str, names: Sequence[str], one: object) -> dict[str, list[float]]:
        """A number of all groups with its intervals; the gap goes to ``gaps``."""
        assert callable(one)
        found = [one(name, self.level) for name in names]
        if len(names) > 1:
            # at this level all intervals hold at once as often as `level` says
            wide = [one(name, 1 - (1 - self.level) / len(names)) for name in names]
            values, lows, highs = (np.array([getattr(e, part) for e in wide]) for part in ("value", "low", "high"))
            self.gaps[f"{key}_gap"] = float(values.max() - values.min())
            self.gaps[f"{key}_gap_low"] = (
                max(float(lows.max() - highs.min()), 0.0) if np.isfinite(lows).all() else np.nan
            )
            self.gaps[f"{key}_gap_high"] = float(highs.max() - lows.min())
        return {f"{key}{end}": [getattr(e, part) for e in found] for end, part in _ENDS.items()}

    def _share(self, hits: np.ndarray, mine: np.ndarray, level: float, chance: float = 0.0) -> _Estimate:
        """A share of pairs; its interval is Wilson's with as many independent pairs as would tell as much.

        ``chance`` is variance from elsewhere: of the thresholds.
        """
        share, n = float(hits.mean()), len(hits)
        variance, freedom = self._variance(hits.astype(float) - share, mine)
        variance += chance
        effective = share * (1 - share) / variance if variance > 0 else float(n)
        effective = min(effective, float(n))
        t = float(stats.t.ppf((1 + level) / 2, freedom)) if freedom >= 1 else float("nan")
        centre = (share + t**2 / (2 * effective)) / (1 + t**2 / effective)
        half = t / (1 + t**2 / effective) * np.sqrt(share * (1 - share) / effective + t**2 / (4 * effective**2))
        return _Estimate(share, max(float(centre - half), 0.0), min(float(centre + half), 1.0))

    def _variance(self, errors: np.ndarray, mine: np.ndarray) -> tuple[float, float]:
        """Variance of a mean of pairs (from their deviations), and its degrees of freedom."""
        n = len(errors)
        if self.pairs.people is None:
            folds = pd.Series(errors).groupby(self.pairs.folds[mine]).sum()
            k = len(folds)
            return float((folds**2).sum() / n**2 * k / max(k - 1, 1)), k - 1
        # every two pairs that share somebody are dependent: people's sums count a pair of two people twice
        first, second = self.pairs.people[mine].T
        is_other = first != second
        frame = pd.DataFrame({"who": np.r_[first, second[is_other]], "error": np.r_[errors, errors[is_other]]})
        sums = frame.groupby("who")["error"].sum()
        k = len(sums)
        total = float((sums**2).sum() - (errors[is_other] ** 2).sum())
        # never below what independent pairs would have
        # a threshold is chosen in each fold, so no more freedom than theirs is claimed
        freedom = min(k, len(np.unique(self.pairs.folds[mine]))) - 1
        return max(total, float((errors**2).sum())) / n**2 * k / max(k - 1, 1), freedom

    def _thresholds(self, others: np.ndarray, ranked: np.ndarray, far: float, level: float) -> tuple[float, float]:
        """Highest and lowest threshold whose true rate may be ``far``, from how many impostors would pass it."""
        n = len(ranked)
        # how much pairs depend on each other is seen where more of them pass
        place = min(max(int(far * n), _TAIL), n - 1)
        passed = (self.scores[others] > ranked[place]).astype(float)
        share = passed.mean()
        variance, _ = self._variance(passed - share, others)
        effect = max(variance * n / (share * (1 - share)), 1.0) if 0 < share < 1 else 1.0
        expected = far * n / effect
        few = stats.gamma.ppf((1 - level) / 2, expected) * effect
        many = stats.gamma.ppf((1 + level) / 2, expected + 1) * effect
        if few >= 1:
            highest = ranked[int(few) - 1]
        else:  # beyond all that were seen: an exponential tail, which falls more slowly than scores do
            excess = float((ranked[:place] - ranked[place]).mean())
            highest = ranked[place] + excess * np.log(place / max(few, 1e-3))
        return float(max(highest, ranked[0]) if few < 1 else highest), float(ranked[min(int(np.ceil(many)), n - 1)])


_ENDS = {"": "value", "_low": "low", "_high": "high"}
