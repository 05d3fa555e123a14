"""The table of the benchmark: one row per method, with intervals over test faces and seeds."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import norm, spearmanr
from scipy.stats import t as student

from vlbias.bench.results import Result
from vlbias.errors import ConfigError
from vlbias.fairness import METRICS, EvaluationSettings, interval, metrics_from_counts, tally
from vlbias.fairness.inference import outdoes, permuted_counts
from vlbias.files import json_value
from vlbias.shown import Glance, Shown

__all__ = ["COLUMNS", "GAP", "HEADINGS", "BenchTable", "RankAgreement", "rank_agreement", "row_words"]

#: Metrics that people see; the others stand in ``table`` and ``to_dict`` as well.
COLUMNS = (
    "accuracy",
    "balanced_accuracy",
    "accuracy_gap",
    "equalized_odds_difference",
    "worst_cell_accuracy",
)
MEASURED = (*COLUMNS, "macro_f1", "equal_opportunity_difference", "demographic_parity_difference")
#: What "the way" and "dominated" speak of. Ties are planted alike in both groups, so errors of the one class in the one
#: group and of the other in the other cancel in the accuracy gap; they do not here.
GAP = "equalized_odds_difference"
BASELINE = "erm"
#: What nobody can have in practice: methods are measured against it, and not dominated by it.
CEILINGS = ("oracle", "more-real")
#: Differences between groups, which chance alone makes larger than they are.
GAPS = ("accuracy_gap", GAP, "equal_opportunity_difference", "demographic_parity_difference")
#: What each of these is with groups permuted within each class, stands in the column of this name.
BY_CHANCE = "{}_by_chance".format
NUM_RESAMPLES, NUM_PERMUTATIONS = 1000, 200
LEVEL = 0.95


@dataclass(frozen=True, eq=False)
class _Numbers:
    """Of one method on one task: metric => value of each fit (s,) in the order of seeds, and resampled means (b,); and
    what each of :data:`GAPS` is by chance.
    """

    fits: dict[str, np.ndarray]
    draws: dict[str, np.ndarray]
    seeds: tuple[int, ...]
    by_chance: dict[str, float]

    @property
    def value(self) -> dict[str, float]:
        """Means over seeds."""
        return {metric: float(fits.mean()) for metric, fits in self.fits.items()}

    def to_dict(self) -> dict[str, float]:
        """Means over seeds, and what gaps are by chance, six digits each."""
        values = self.value | {BY_CHANCE(metric): value for metric, value in self.by_chance.items()}
        return {name: round(value, 6) for name, value in values.items()}


@dataclass(frozen=True, repr=False, eq=False)
class BenchTable(Shown):
    """Results of methods on tasks.

    Attributes:
        results: one each fit.
        notes: what could not be entered, and why.
    """

    results: Sequence[Result]
    notes: Sequence[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not self.results:
            raise ConfigError("nothing was measured; enter at least one method on one task.")

    @property
    def labels(self) -> list[str]:
        """Methods, in the order in which they were entered."""
        return list(dict.fromkeys(result.label for result in self.results))

    @property
    def tasks(self) -> list[str]:
        """Tasks, likewise."""
        return list(dict.fromkeys(result.task for result in self.results))

    @cached_property
    def _numbers(self) -> dict[tuple[str, str], _Numbers]:
        """(task, method) => numbers."""
        found = {}
        for task in self.tasks:
            of_task = [result for result in self.results if result.task == task]
            found.update({(task, label): numbers for label, numbers in _resampled(task, of_task).items()})
        return found

    def _tasks_of(self, *labels: str) -> list[str]:
        return [task for task in self.tasks if all((task, label) in self._numbers for label in labels)]

    def _value(self, label: str, metric: str, tasks: Iterable[str]) -> float:
        return float(np.mean([self._numbers[task, label].value[metric] for task in tasks]))

    def _draws(self, label: str, metric: str, tasks: Iterable[str]) -> np.ndarray:
        return np.mean([self._numbers[task, label].draws[metric] for task in tasks], axis=0)

    @cached_property
    def table(self) -> pd.DataFrame:
        """One row per method: each metric, the mean over tasks and seeds, with ``_low`` and ``_high``; the differences
        between groups that the same answers have ``_by_chance``, with the groups of test faces permuted within each
        class; ``change`` of the difference from plain training, paired; ``way`` of it to the ceiling (the oracle, or
        more real faces), 1 for all of it; on how many tasks it is ``dominated`` by another method, that is as accurate
        with a gap as small, and better in one of these, and whether it is so ``on average``; how many ``tasks``,
        ``fits``.
        """
        return pd.DataFrame([self._row(label) for label in self.labels], index=pd.Index(self.labels, name="method"))

    def _row(self, label: str) -> dict[str, Any]:
        tasks = self._tasks_of(label)
        row: dict[str, Any] = {}
        for metric in MEASURED:
            value, low, high = self._between({label: 1}, metric, tasks)
            row |= {metric: value, f"{metric}_low": max(low, 0.0), f"{metric}_high": min(high, 1.0)}
        for metric in GAPS:
            row[BY_CHANCE(metric)] = float(np.mean([self._numbers[task, label].by_chance[metric] for task in tasks]))
        row |= self._change(label) | self._way(label)
        row["dominated"] = sum(bool(self._dominating(label, [task])) for task in tasks)
        row["on_average"] = ", ".join(self._dominating(label, tasks))
        fits = sum(len(self._numbers[task, label].seeds) for task in tasks)
        return row | {"tasks": len(tasks), "fits": fits}

    def _change(self, label: str) -> dict[str, float]:
        tasks = self._tasks_of(label, BASELINE)
        if label == BASELINE or not tasks:
            return dict.fromkeys(("change", "change_low", "change_high"), float("nan"))
        value, low, high = self._between({label: 1, BASELINE: -1}, GAP, tasks)
        return {"change": value, "change_low": low, "change_high": high}

    def _mixed(self, weights: Mapping[str, float], metric: str, tasks: Sequence[str]) -> np.ndarray:
        """Draws of a weighted sum of methods."""
        return np.sum([weight * self._draws(label, metric, tasks) for label, weight in weights.items()], axis=0)

    def _between(self, weights: Mapping[str, float], metric: str, tasks: Sequence[str]) -> tuple[float, float, float]:
        """A weighted sum of methods, mean over tasks, and its interval."""
        value = sum(weight * self._value(label, metric, tasks) for label, weight in weights.items())
        draws = self._mixed(weights, metric, tasks)
        low, high = interval(self._stretch(weights, metric, tasks) * (draws - draws.mean()) + value, LEVEL)
        return value, low, high

    def _stretch(self, weights: Mapping[str, float], metric: str, tasks: Sequence[str]) -> float:
        """How much wider an interval is since the spread of fits is known from a few seeds.

        What seeds add is taken by Student's quantile, over several tasks with the degrees of freedom of Welch (1947)
        and Satterthwaite; what test faces add by the normal one, for they are many. One quantile for both would be
        that of few seeds only where these are seen to differ, which three that happen to be alike are not
        (``benchmarks/table_coverage.py``).
        """
        spread = doubt = 0.0
        for task in tasks:
            by_seeds: dict[tuple[int, ...], np.ndarray] = {}
            for label, weight in weights.items():
                numbers = self._numbers[task, label]  # methods with the same seeds are paired
                by_seeds[numbers.seeds] = by_seeds.get(numbers.seeds, 0) + weight * numbers.fits[metric]
            for seeds, fits in by_seeds.items():
                if len(seeds) > 1:
                    variance = float(fits.var(ddof=1)) / len(seeds) / len(tasks) ** 2
                    spread, doubt = spread + variance, doubt + variance**2 / (len(seeds) - 1)
        if doubt == 0:
            return 1.0
        by_faces = max(float(self._mixed(weights, metric, tasks).var()) - spread, 0.0)
        upper = (1 + LEVEL) / 2
        wider = student.ppf(upper, spread**2 / doubt) / norm.ppf(upper)
        return float(np.sqrt((wider**2 * spread + by_faces) / (spread + by_faces)))

    def _way(self, label: str) -> dict[str, float]:
        """Undefined where there is no ceiling, or the ceiling is no better than plain training for sure."""
        names = ("way", "way_low", "way_high")
        ceiling = next((one for one in CEILINGS if self._tasks_of(label, BASELINE, one)), None)
        if ceiling is None or label in (BASELINE, ceiling):
            return dict.fromkeys(names, float("nan"))
        tasks = self._tasks_of(label, BASELINE, ceiling)
        value = {one: self._value(one, GAP, tasks) for one in (label, BASELINE, ceiling)}
        draws = {one: self._draws(one, GAP, tasks) for one in (label, BASELINE, ceiling)}
        most = draws[BASELINE] - draws[ceiling]
        if np.quantile(most, (1 - LEVEL) / 2) <= 0:
            return dict.fromkeys(names, float("nan"))
        ways = (draws[BASELINE] - draws[label]) / most
        way = (value[BASELINE] - value[label]) / (value[BASELINE] - value[ceiling])
        # what a fit of each method adds to the way, to first order
        weights = {label: -1.0, BASELINE: 1 - way, ceiling: way}
        ways = way + self._stretch(weights, GAP, tasks) * (ways - way)
        return dict(zip(names, (way, *interval(ways, LEVEL)), strict=True))

    def _dominating(self, label: str, tasks: Sequence[str]) -> list[str]:
        """Methods that are no less accurate, with no larger gap, and better in one of these, on average over tasks."""
        if label in CEILINGS:
            return []
        found = []
        for other in self.labels:
            common = [task for task in self._tasks_of(label, other) if task in tasks]
            if other == label or other in CEILINGS or len(common) < len(tasks):
                continue
            accuracy = self._value(other, "accuracy", common) - self._value(label, "accuracy", common)
            gap = self._value(other, GAP, common) - self._value(label, GAP, common)
            if outdoes(accuracy, gap):
                found.append(other)
        return found

    def by_task(self, metric: str = GAP) -> pd.DataFrame:
        """A metric, mean over seeds: one row per method, one column per task; NaN where it was not entered.

        Raises:
            ConfigError: the table has no such metric.
        """
        if metric not in MEASURED:
            raise ConfigError(f"the table has no metric '{metric}'; it has {', '.join(MEASURED)}.")
        rows = {(label, task): numbers.value[metric] for (task, label), numbers in self._numbers.items()}
        return pd.Series(rows).unstack().reindex(index=self.labels, columns=self.tasks)

    def ahead(self, label: str, metric: str = GAP, *, on_average: bool = False) -> pd.DataFrame:
        """By how much a method is better than each other one.

        Args:
            label: the method.
            metric: by which; gaps are better where they are smaller, accuracies where they are larger.
            on_average: over the tasks that both were entered on, in place of task by task.

        Returns:
            one row per task and other method (the index), or per other method: ``ahead``, and its 95 % interval from
            ``low`` to ``high``, paired over test faces. An interval above 0 says that the method is ahead.

        Raises:
            ConfigError: the table has no such method or metric.
        """
        if label not in self.labels:
            raise ConfigError(f"the table has no method {label!r}; it has {', '.join(self.labels)}.")
        if metric not in MEASURED:
            raise ConfigError(f"the table has no metric '{metric}'; it has {', '.join(MEASURED)}.")
        others = [other for other in self.labels if other != label]
        pairs = [(task, other) for task in self._tasks_of(label) for other in others if (task, other) in self._numbers]
        index: pd.Index | None
        if on_average:
            index = pd.Index(others, name="method")
            rows = [self._ahead(label, other, metric, self._tasks_of(label, other)) for other in others]
        else:
            index = pd.MultiIndex.from_tuples(pairs, names=["task", "method"]) if pairs else None
            rows = [self._ahead(label, other, metric, [task]) for task, other in pairs]
        return pd.DataFrame(rows, index=index, columns=["ahead", "low", "high"])

    def _ahead(self, label: str, other: str, metric: str, tasks: Sequence[str]) -> tuple[float, float, float]:
        if not tasks:
            return (float("nan"),) * 3
        sign = -1 if metric.endswith(("gap", "difference")) else 1
        return self._between({label: sign, other: -sign}, metric, tasks)

    def describe(self) -> str:
        """The table in lines of text; intervals are 95 %."""
        words = pd.DataFrame([self.words(label) for label in self.labels], columns=list(HEADINGS))
        return str(words.to_string(index=False))

    __str__ = describe

    def _glance(self) -> Glance:
        line = f"{len(self.labels)} methods on {len(self.tasks)} tasks, {len(self.results)} fits"
        return Glance(line, HEADINGS, [self.words(label) for label in self.labels])

    def words(self, label: str) -> tuple[str, ...]:
        """A row of the table as people read it, below :data:`HEADINGS`."""
        return row_words(label, self.to_dict()["methods"][label])

    def to_dict(self) -> dict[str, Any]:
        """Plain values, six digits each."""
        rows = {
            str(label): {str(name): json_value(value, 6) for name, value in row.items()}
            for label, row in self.table.iterrows()
        }
        each = {
            task: {
                label: self._numbers[task, label].to_dict() for label in self.labels if (task, label) in self._numbers
            }
            for task in self.tasks
        }
        return {"methods": rows, "tasks": each, "notes": list(self.notes)}


#: Of :meth:`BenchTable.words`.
HEADINGS = (
    "method",
    *(METRICS[metric].title.lower() for metric in COLUMNS),
    "by chance",
    "way",
    "dominated",
    "on average by",
    "fits",
)


def row_words(label: str, row: Mapping[str, Any]) -> tuple[str, ...]:
    """A row of ``BenchTable.to_dict()["methods"]`` as people read it, below :data:`HEADINGS`."""
    cells = [_spelled(row[metric], row[f"{metric}_low"], row[f"{metric}_high"]) for metric in COLUMNS]
    # accuracy gap, equalised odds difference; tables of before have none, or the second alone
    chances = [_spelled(row.get(BY_CHANCE(metric)), None, None) for metric in COLUMNS if metric in GAPS]
    cells.append(", ".join(filter(None, chances)))
    way = _spelled(row["way"], row["way_low"], row["way_high"], digits=2)
    dominated = "" if label in CEILINGS else f"{row['dominated']} of {row['tasks']}"
    return (label, *cells, way, dominated, _few_names(row["on_average"]), str(row["fits"]))


def _few_names(names: str) -> str:
    """Methods for a cell of a table; :meth:`BenchTable.to_dict` has all of them."""
    first, *others = names.split(", ")
    return names if len(others) < 3 else f"{first}, {others[0]} and {len(others) - 1} more"


def _spelled(value: float | None, low: float | None, high: float | None, digits: int = 3) -> str:
    if value is None:
        return ""
    texts = ["" if number is None else f"{number:.{digits}f}" for number in (value, low, high)]
    return texts[0] if low is None else f"{texts[0]} ({texts[1]} to {texts[2]})"


def _resampled(task: str, results: Sequence[Result]) -> dict[str, _Numbers]:
    """Numbers of each method on a task, resampled over test faces within their cells and over seeds.

    The same faces are drawn for all methods, and the same seeds for those that have the same ones, whichever others
    stand in the table.
    """
    first = results[0]
    for one in results:
        if not (np.array_equal(one.y, first.y) and np.array_equal(one.group, first.group)):
            raise ConfigError(f"results of {task} are of different test faces; keep them in two tables.")
    codes = np.stack([one.codes for one in results])
    how = EvaluationSettings().for_counts(first.classes)
    counts = tally(first.group, first.y, codes, num_groups=len(first.groups), num_classes=len(first.classes))
    observed = metrics_from_counts(counts, **how)
    number = zlib.crc32(task.encode())
    drawn = metrics_from_counts(_drawn_counts(first, codes, np.random.default_rng(number)), **how)
    found = {}
    for label in dict.fromkeys(one.label for one in results):
        rows = sorted((r for r, one in enumerate(results) if one.label == label), key=lambda row: results[row].seed)
        seeds = [results[row].seed for row in rows]
        weights = _seed_weights(seeds, np.random.default_rng([number, *seeds]))
        fits = {m: observed[m][rows] for m in MEASURED}
        draws = {m: (drawn[m][:, rows] - fits[m]).mean(1) + weights @ fits[m] for m in MEASURED}
        nulls = [permuted_counts(counts[row], NUM_PERMUTATIONS, [number, results[row].seed]) for row in rows]
        null = metrics_from_counts(np.stack(nulls), **how)
        found[label] = _Numbers(fits, draws, tuple(seeds), {metric: float(null[metric].mean()) for metric in GAPS})
    return found


def _seed_weights(seeds: Sequence[int], rng: np.random.Generator) -> np.ndarray:
    """Weights (b, s) of fits: sums with them spread about the mean as means over other seeds would, and normally.

    Of three fits there are but ten sets with repeats, too few for the ends of an interval.
    """
    count = len(seeds)
    away = rng.standard_normal((NUM_RESAMPLES, count))
    return 1 / count + (away - away.mean(1, keepdims=True)) / np.sqrt(count * max(count - 1, 1))


def _drawn_counts(first: Result, codes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Class codes of fits (f, n) => resampled counts (b, f, g, y, p)."""
    num_classes = len(first.classes)
    counts = np.zeros((NUM_RESAMPLES, len(codes), len(first.groups), num_classes, num_classes))
    for g, y in np.unique(np.stack([first.group, first.y]), axis=1).T:
        members = np.flatnonzero((first.group == g) & (first.y == y))
        weights = rng.multinomial(len(members), np.full(len(members), 1 / len(members)), size=NUM_RESAMPLES)
        for p in range(num_classes):
            counts[:, :, g, y, p] = weights.astype(np.float64) @ (codes[:, members] == p).T.astype(np.float64)
    return counts


@dataclass(frozen=True)
class RankAgreement:
    """Whether two classifiers rank methods alike.

    Attributes:
        mean: Spearman's correlation of two rankings of the methods, the mean over tasks.
        overall: that of the methods' means over tasks.
        num_methods, num_tasks: that both were measured on.
    """

    mean: float
    overall: float
    num_methods: int
    num_tasks: int


def rank_agreement(one: BenchTable, other: BenchTable, metric: str = GAP) -> RankAgreement:
    """How alike two classifiers rank the methods that both were measured with.

    Raises:
        ConfigError: fewer than three methods on one task are common.
    """
    a, b = one.by_task(metric), other.by_task(metric)
    labels, tasks = a.index.intersection(b.index), a.columns.intersection(b.columns)
    a, b = a.loc[labels, tasks], b.loc[labels, tasks]
    whole = (a.notna() & b.notna()).all(axis=1)
    a, b = a[whole], b[whole]
    if len(a) < 3 or not len(tasks):
        raise ConfigError(f"{len(a)} methods on {len(tasks)} tasks are common; ranks need three methods and one task.")
    each = [float(spearmanr(a[task], b[task]).statistic) for task in tasks]
    overall = float(spearmanr(a.mean(axis=1), b.mean(axis=1)).statistic)
    return RankAgreement(float(np.mean(each)), overall, len(a), len(tasks))
