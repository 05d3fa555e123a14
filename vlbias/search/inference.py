"""How sure objectives are: intervals, and which candidate is dominated.

Two sources of chance are carried along: who is in the evaluation set, as a probe and in the gallery of all others (a
jackknife over people: what the numbers would be without each of them, in every group), and which seed training had
(the spread of refits, pooled over candidates because few refits of one say little about it).

Noise is added to the rates of groups, on a scale where it is additive, and never to a gap: the largest of K noisy rates
minus the smallest is too large even where all are equal, the more so the more groups there are. The interval of a gap
therefore holds those gaps whose noisy copies would look like the observed one. It starts at 0 unless the observed gap
would be rare among equal groups.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from vlbias.errors import ShapeError
from vlbias.search.evaluation import Evaluation
from vlbias.settings import MAX_DRAWS, checked_number

__all__ = ["Comparison", "compare", "intervals"]

#: Group variances are drawn towards their mean over groups as if so many people more had been seen.
_PRIOR_PEOPLE = 4
#: More people than this are taken together at random: the variance of sums is that of their parts.
_MOST_PEOPLE = 2000
#: Steps between equal groups and groups further apart than the observed ones by so many errors; those up to the latter.
_STEPS, _BEYOND, _INWARDS = 41, 6.0, 25
#: Halvings of an interval until its middle is exact.
_HALVINGS = 50
#: Names of objectives that lie in [0, 1], and of those that are positive.
_BOUNDED, _POSITIVE = "error", "rank"


@dataclass(frozen=True)
class Comparison:
    """Candidates on the same people.

    Attributes:
        mean: (k, m), objectives of the rates averaged over refits.
        interval: (k, m, 2); NaN where the uncertainty cannot be known.
        dominance: (k + 1, k). Row i holds how sure it is that candidate i dominates the column: 1 minus the p-value
            of "i is worse in some objective" times the number of objectives. The last row is that of the surest row.
            The diagonal is 0.
        withheld: why ``dominance`` is NaN, or "".
    """

    mean: np.ndarray
    interval: np.ndarray
    dominance: np.ndarray
    withheld: str = ""


def compare(
    evaluations: Sequence[Sequence[Evaluation]],
    objectives: Sequence[str],
    *,
    level: float = 0.95,
    num_resamples: int = 2000,
    seed: int = 0,
) -> Comparison:
    """Candidates x refits of evaluations on the same images => values with intervals, and dominance.

    Args:
        evaluations: k candidates, r refits each; all of the same images in the same order.
        objectives: m names.
        level: of the intervals, in (0, 1).
        num_resamples: draws of the noise.
        seed: of the draws.

    Raises:
        ShapeError: numbers of refits differ, or the images do.
    """
    checked_number("num_resamples", num_resamples, low=1, high=MAX_DRAWS)
    k, r = len(evaluations), len(evaluations[0])
    _check_same_images(evaluations)
    worlds = _worlds(evaluations, num_resamples, seed)
    mean = np.array([[world.value(name) for name in objectives] for world in worlds])
    if lonely := _lonely_group(evaluations[0][0]):
        reason = f"group {lonely!r} has one person, so nothing says how people differ in it"
        return Comparison(mean, np.full((*mean.shape, 2), np.nan), np.full((k + 1, k), np.nan), reason)
    interval = np.array([[world.interval(name, level) for name in objectives] for world in worlds])
    if r < 2:
        reason = "one training of each candidate does not say how much trainings differ; ask for two refits or more"
        return Comparison(mean, interval, np.full((k + 1, k), np.nan), reason)
    return Comparison(mean, interval, _dominance(worlds, objectives, mean))


def intervals(
    evaluation: Evaluation, *, level: float = 0.95, num_resamples: int = 2000, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """Objective -> (low, high) of one model, about other people and not about training it again.

    NaN throughout where a group has one person: nothing says how people differ in it.
    """
    names = evaluation.objectives()
    found = compare([[evaluation]], list(names), level=level, num_resamples=num_resamples, seed=seed)
    return {name: (float(low), float(high)) for name, (low, high) in zip(names, found.interval[0], strict=True)}


def _check_same_images(evaluations: Sequence[Sequence[Evaluation]]) -> None:
    first = evaluations[0][0]
    for runs in evaluations:
        if len(runs) != len(evaluations[0]):
            raise ShapeError(f"Every candidate needs {len(evaluations[0])} refits; one has {len(runs)}.")
        for one in runs:
            if not (np.array_equal(one.groups, first.groups) and np.array_equal(one.persons, first.persons)):
                raise ShapeError("Evaluations must be of the same images in the same order.")


def _people(evaluation: Evaluation) -> np.ndarray:
    """People who count in each group (g,)."""
    return (evaluation.sums[:, :, 0] > 0).sum(0)


def _lonely_group(evaluation: Evaluation) -> str | None:
    people = _people(evaluation)
    return evaluation.group_names[int(people.argmin())] if people.min() < 2 else None


# ---------------------------------------------------------------------------------------------------------------------
# Rates and their noise


@dataclass(frozen=True)
class _Scale:
    """Where noise is additive: logits of errors and logarithms of ranks, else the rates themselves."""

    is_identify: bool

    def forward(self, rates: np.ndarray, images: np.ndarray, people: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rates (g, s) => place on the scale (g, s) and its derivative. Half a person keeps errors off 0 and 1."""
        if not self.is_identify:
            return rates, np.ones_like(rates)
        per_person = images / np.maximum(people, 1)
        error = (rates[:, 0] * images + 0.5 * per_person) / (images + per_person)
        rank = np.maximum(rates[:, 1:], 0.5 / images[:, None])
        place = np.c_[np.log(error / (1 - error)), np.log(rank)]
        return place, np.c_[1 / (error * (1 - error)), 1 / rank]

    def backward(self, place: np.ndarray) -> np.ndarray:
        """Places (..., g, s) => rates."""
        if not self.is_identify:
            return place
        return np.concatenate([_expit(place[..., :1]), np.exp(np.minimum(place[..., 1:], 50.0))], axis=-1)


@dataclass(frozen=True)
class _World:
    """One candidate: its rates (averaged over refits) and draws of their noise.

    Attributes:
        like: an evaluation of it, for the sizes of groups.
        rates: (g, s).
        place: (g, s), the rates on their scale.
        noise: (b, g, s), on that scale.
        scale: what it is.
    """

    like: Evaluation
    rates: np.ndarray
    place: np.ndarray
    noise: np.ndarray
    scale: _Scale

    @cached_property
    def values(self) -> dict[str, np.ndarray]:
        """Objectives as observed (1,)."""
        return self.like.objectives_of(self.rates[None])

    @cached_property
    def draws(self) -> dict[str, np.ndarray]:
        """Objectives with noise (b,)."""
        return self.at(self.place + self.noise)

    @cached_property
    def along(self) -> list[dict[str, np.ndarray]]:
        """Objectives with noise (b,) at each step of the line."""
        return [self.at(place + self.noise) for place in self.line[0]]

    def value(self, name: str) -> float:
        return float(self.values[name][0])

    def at(self, place: np.ndarray) -> dict[str, np.ndarray]:
        """Objectives (b,) at places (b, g, s)."""
        return self.like.objectives_of(self.scale.backward(place))

    def interval(self, name: str, level: float) -> tuple[float, float]:
        if np.isnan(self.value(name)):
            return float("nan"), float("nan")
        if name.endswith("_gap"):
            return self._gap_interval(name, level)
        if name.startswith("worst_"):
            return self._worst_interval(name, level)
        draws = _unfold(name, self.draws[name])
        half = float(np.quantile(np.abs(draws - np.median(draws)), level))
        middle = float(_unfold(name, self.at(self.place[None])[name])[0])
        return self._around(name, middle - half, middle + half)

    def _around(self, name: str, low: float, high: float) -> tuple[float, float]:
        """An interval off the scale of an objective, with its value inside."""
        value = self.value(name)
        return min(float(_fold(name, low)), value), max(float(_fold(name, high)), value)

    def _worst_interval(self, name: str, level: float) -> tuple[float, float]:
        """Of the worst group's rate, which is too large where groups are alike, and right where one stands apart."""
        tail = (1 - level) / 2
        start = self._apart(f"{name.removeprefix('worst_')}_gap")
        drawn = _unfold(name, self.at(start + self.noise)[name]) - _unfold(name, self.at(start[None])[name])
        alone = [self.at(np.broadcast_to(row, self.place.shape)[None])[name][0] for row in self.place]
        worst = int(np.nanargmax(alone))
        own = _unfold(name, self.at(self.place[[worst]] + self.noise[:, [worst]] + 0 * self.place)[name])
        middle = float(_unfold(name, self.at(self.place[None])[name])[0])
        low = middle - float(np.quantile(drawn, 1 - tail))
        high = middle + float(np.quantile(float(_unfold(name, np.array(alone[worst]))) - own, 1 - tail))
        return self._around(name, low, high)

    @cached_property
    def line(self) -> tuple[np.ndarray, np.ndarray]:
        """Places (steps, g, s) whose ranges grow from 0, and how far from equal each is in errors (steps, s).

        Inwards stand the places nearest to the observed ones that lie within a smaller range. The observed ones drawn
        together would not do: where groups are alike they differ by noise alone, and the draws add theirs to it.
        Outwards the two extremes move apart.
        """
        weight = 1 / np.maximum(np.median(np.abs(self.noise), axis=0), 1e-12) ** 2  # (g, s)
        apart = np.linalg.norm(self.noise - self.noise.mean(1, keepdims=True), axis=1)  # (b, s)
        unit = np.median(apart, axis=0)
        inside = _within(self.place, weight, np.linspace(0, 1, _INWARDS)[:, None] * np.ptp(self.place, axis=0))
        extra = np.linspace(0, _BEYOND, _STEPS - _INWARDS + 1)[1:, None] * unit
        places = np.concatenate([inside, _stretched(self.place, weight, extra)])
        length = np.linalg.norm(places - places.mean(1, keepdims=True), axis=1)
        if not self.scale.is_identify:  # all rates of a classifier belong to one objective
            length[:], unit = np.linalg.norm(length, axis=1, keepdims=True), np.full_like(unit, np.linalg.norm(unit))
        return places, length / np.where(unit > 0, unit, 1)

    def _tails(self, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Along the line: places, their distance, the true gap, and how often a noisy one is >= or <= the observed."""
        places, far = self.line
        value = self.value(name)
        drawn = np.array([step[name] for step in self.along])
        component = _component(name) if self.scale.is_identify else 0
        if (drawn[-1] >= value).mean() < 0.5:
            # At the end of its range (everybody of a group is missed), where draws never quite arrive.
            value = float(self.at(self.place[None])[name][0])
        # Values come in steps of an image, draws do not.
        step = 0.5 / float(self.like.mass.min())
        more, less = (drawn >= value - 1e-12).mean(1), (drawn <= value + step).mean(1)
        return places, far[:, component], self.at(places)[name], more, less

    def _apart(self, name: str) -> np.ndarray:
        """Places of groups for which the observed gap would be in the middle: the gap without its noise."""
        places, _, _, more, _ = self._tails(name)
        return places[min(int(np.searchsorted(np.maximum.accumulate(more), 0.5)), _STEPS - 1)]

    def _gap_interval(self, name: str, level: float) -> tuple[float, float]:
        """The gaps whose noisy copies would look like the observed one.

        Near 0 only gaps that are too small are ruled out, far from it both tails are: so the interval of equal groups
        holds 0 in ``level`` of the cases, and not always.
        """
        _, far, gaps, more, less = self._tails(name)
        below = (1 - level) / 2 * (1 - np.exp(-((far / 1.5) ** 2)))  # what may be lost on the lower side
        above = more - ((1 - level) - below)
        under = np.where(far == 0, 1.0, less - below)
        inside = np.flatnonzero((above > 0) & (under > 0))
        if not len(inside):
            return float("nan"), float("nan")
        first, last = int(inside[0]), int(inside[-1])
        low = 0.0 if first == 0 else np.interp(0, above[first - 1 : first + 1], gaps[first - 1 : first + 1])
        ends = slice(last, last + 2)
        high = gaps[-1] if last == _STEPS - 1 else np.interp(0, -under[ends], gaps[ends])
        value = self.value(name)
        return max(min(float(low), value), 0.0), max(float(high), value)


def _within(place: np.ndarray, weight: np.ndarray, width: np.ndarray) -> np.ndarray:
    """Places (n, g, s) nearest to (g, s), by weighted squares, that lie within intervals of these widths (n, s)."""
    low, high = (np.broadcast_to(end, width.shape) for end in (place.min(0), place.max(0)))
    for _ in range(_HALVINGS):
        start = (low + high) / 2
        below, above = start[:, None] - place, place - (start + width)[:, None]
        must_rise = (weight * (np.maximum(below, 0) - np.maximum(above, 0))).sum(1) < 0
        low, high = np.where(must_rise, start, low), np.where(must_rise, high, start)
    start = (low + high)[:, None] / 2
    return np.clip(place, start, start + width[:, None])


def _stretched(place: np.ndarray, weight: np.ndarray, extra: np.ndarray) -> np.ndarray:
    """Places (n, g, s) whose range is larger by (n, s): the extremes move, the less sure one more."""
    order = np.argsort(place, axis=0, kind="stable")
    stretched = np.repeat(place[None], len(extra), axis=0)
    for component in range(place.shape[1]):
        bottom, top = order[[0, -1], component]
        share = weight[bottom, component] / weight[[bottom, top], component].sum()
        stretched[:, top, component] += share * extra[:, component]
        stretched[:, bottom, component] -= (1 - share) * extra[:, component]
    return stretched


def _worlds(evaluations: Sequence[Sequence[Evaluation]], num_resamples: int, seed: int) -> list[_World]:
    """Candidates with noise; who is in the set is drawn once for all of them."""
    first = evaluations[0][0]
    scale, images, people = _Scale(first.kind == "identify"), first.mass, _people(first)
    prior = _PRIOR_PEOPLE if scale.is_identify else 0
    generator = np.random.default_rng(seed)
    drawn = generator.normal(size=(num_resamples, min(len(first.sums), _MOST_PEOPLE)))
    freedom = np.maximum(people - 1, 1) + prior
    heavy = np.sqrt(freedom / generator.chisquare(freedom, size=(num_resamples, len(people))))[:, :, None]
    rates = [np.mean([one.rates for one in runs], axis=0) for runs in evaluations]
    refits = _refit_noise(evaluations, rates, scale, generator, num_resamples)
    worlds = []
    with np.errstate(divide="ignore", invalid="ignore"):
        for runs, mean, refit in zip(evaluations, rates, refits, strict=True):
            place, slope = scale.forward(mean, images, people)
            influence = np.mean([_influence(one) for one in runs], axis=0) * slope
            noise = np.tensordot(drawn, _gathered(influence), axes=1)
            if scale.is_identify:
                missing = _missing_deviation(influence, place, images, people)
                noise += missing * generator.normal(size=noise.shape)
            worlds.append(_World(runs[0], mean, place, noise * heavy + refit, scale))
    return worlds


def _influence(evaluation: Evaluation) -> np.ndarray:
    """Influence of each person (p, g, s): its squares add up to the jackknife variance, people within groups."""
    without = evaluation.rates_without_each()
    influence = np.zeros_like(without)
    for group in np.unique(evaluation.home):
        inside = evaluation.home == group
        num = int(inside.sum())
        influence[inside] = np.sqrt((num - 1) / num) * (without[inside].mean(0) - without[inside])
    return influence


def _gathered(influence: np.ndarray) -> np.ndarray:
    if len(influence) <= _MOST_PEOPLE:
        return influence
    gathered = np.zeros((_MOST_PEOPLE, *influence.shape[1:]))
    np.add.at(gathered, np.arange(len(influence)) % _MOST_PEOPLE, influence)
    return gathered


def _missing_deviation(influence: np.ndarray, place: np.ndarray, images: np.ndarray, people: np.ndarray) -> np.ndarray:
    """Standard deviation (g, s) that few people, or none who was mistaken, do not show."""
    variance = (influence**2).sum(0)
    freedom = np.maximum(people - 1, 0)[:, None]
    of_person = variance * people[:, None]
    pooled = (freedom * of_person).sum(0) / freedom.sum()
    target = (freedom * of_person + _PRIOR_PEOPLE * pooled) / (freedom + _PRIOR_PEOPLE) / people[:, None]
    # At least that of independent images.
    error, rank = _expit(place[:, :1]), np.exp(place[:, 1:])
    least = np.c_[1 / (error * (1 - error)), 1 / rank] / images[:, None]
    return np.sqrt(np.maximum(np.maximum(target, least) - variance, 0.0))


def _refit_noise(
    evaluations: Sequence[Sequence[Evaluation]],
    rates: Sequence[np.ndarray],
    scale: _Scale,
    generator: np.random.Generator,
    num_resamples: int,
) -> np.ndarray:
    """Noise (k, b, g, s) of a mean of r refits: multivariate Student t with the covariance pooled over candidates."""
    k, r = len(evaluations), len(evaluations[0])
    if r < 2:
        return np.zeros((k, 1, 1, 1))
    first = evaluations[0][0]
    residuals = []
    for runs, mean in zip(evaluations, rates, strict=True):
        slope = scale.forward(mean, first.mass, _people(first))[1]
        residuals += [(one.rates - mean) * slope for one in runs]
    freedom = k * (r - 1)
    normal = generator.normal(size=(k, num_resamples, len(residuals)))
    heavy = np.sqrt(freedom / generator.chisquare(freedom, size=(1, num_resamples, 1, 1)))
    return np.tensordot(normal, np.array(residuals), axes=1) * heavy / np.sqrt(freedom * r)


# ---------------------------------------------------------------------------------------------------------------------
# Dominance


def _dominance(worlds: Sequence[_World], objectives: Sequence[str], mean: np.ndarray) -> np.ndarray:
    """How sure it is that the row dominates the column (k + 1, k); the last row is the surest."""
    k = len(worlds)
    draws = np.array([[world.draws[name] for name in objectives] for world in worlds])
    p = np.ones((k, k))
    for i in range(k):
        for j in range(k):
            if i == j:
                continue
            # Gaps are too large by their noise, in both; what is left of it in the difference is its mean.
            difference = draws[i] - draws[j]
            if np.isnan(difference).any() or np.isnan(mean[[i, j]]).any():
                continue  # an objective that is not known supports no claim
            difference -= difference.mean(1, keepdims=True)
            as_low = (difference <= (mean[i] - mean[j])[:, None]).sum(1)
            # Worse in none: the least sure of the objectives decides (intersection-union). That needs no correction
            # for their number; it is made all the same, since the bias of gaps is not known to the last.
            p[i, j] = min(1.0, len(objectives) * ((1 + as_low) / (1 + draws.shape[2])).max())
    return np.vstack([1 - p, 1 - p.min(0)])


# ---------------------------------------------------------------------------------------------------------------------
# Scales of objectives


def _component(name: str) -> int:
    """Which rate an objective of identification is made of: error, rank by person, rank by image."""
    return 2 if name.startswith("image_rank") else 1 if "rank" in name else 0


def _unfold(name: str, values: np.ndarray) -> np.ndarray:
    """An objective on the whole line: logit of an error, logarithm of a rank."""
    if name.endswith(_BOUNDED):
        inside = np.clip(values, 1e-4, 1 - 1e-4)
        return np.log(inside / (1 - inside))
    return np.log(np.maximum(values, 1e-3)) if name.endswith(_POSITIVE) else values


def _fold(name: str, values: float) -> float:
    if name.endswith(_BOUNDED):
        return float(_expit(np.array(values)))
    return float(np.exp(values)) if name.endswith(_POSITIVE) else values


def _expit(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(x, -700, 700)))
