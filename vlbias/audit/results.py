"""What an audit found: every classifier's answers, and what they say of accuracy and fairness, with intervals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property, partial
from typing import Any

import numpy as np
import pandas as pd

from vlbias import classify
from vlbias.errors import ConfigError
from vlbias.fairness import (
    METRICS,
    EvaluationSettings,
    interval,
    metrics_from_counts,
    permuted_counts,
    permuted_groups,
    tally,
)
from vlbias.fairness.counts import Counts
from vlbias.fairness.inference import outdoes
from vlbias.fairness.intervals import Fits, intervals, resampled_items
from vlbias.fairness.metrics import share
from vlbias.files import json_records, json_value
from vlbias.shown import Glance, Shown, plural

__all__ = ["CHANCE_GAPS", "ArmSummary", "AuditResult", "TrainingSummary"]

#: Gaps of which a share of the oracle's cut is reported.
GAPS = ("accuracy_gap", "equal_opportunity_difference", "equalized_odds_difference", "demographic_parity_difference")
#: Gaps whose level under chance is reported; demographic parity is left out, as its null keeps unequal base rates.
CHANCE_GAPS = GAPS[:3]
#: What is known of a metric of one training set.
SUMMARY = ("mean", "low", "high", "change", "change_low", "change_high", "chance")
NUM_PERMUTATIONS = 200


@dataclass(frozen=True)
class TrainingSummary:
    """What a classifier was trained on.

    Attributes:
        num_images: images with a target label, which are those used.
        num_missing: images left out because their target is missing.
        num_made: edited or sampled images among them.
        num_in_test: test images that are also here, pixel by pixel.
        counts: rows are classes, columns are groups; an unknown group is its own column.
    """

    num_images: int
    num_missing: int
    num_made: int
    num_in_test: int
    counts: pd.DataFrame


@dataclass(frozen=True)
class ArmSummary:
    """How an arm of the comparison was made.

    Attributes:
        text: what it does, one line.
        chosen: learning rate, weight decay and the arm's knob, chosen on validation faces, with
            ``validation_accuracy`` and ``validation_loss``, means over cells and seeds.
    """

    text: str
    chosen: Mapping[str, float]


@dataclass(frozen=True, repr=False)
class AuditResult(Shown):
    """Predictions of every classifier on the common test set, and what follows from them.

    Attributes:
        target, protected: as asked.
        classes, groups: labels as text, in the order of the codes below.
        y_true: class codes of the test items (n,).
        group: group codes of the test items (n,).
        predictions: training set -> class codes (seeds, n).
        training: training set -> what was in it.
        seeds: one classifier each.
        settings: of the classifiers.
        evaluation: of their predictions; ``positive`` is the class that was taken, ``None`` where all are joined.
        num_test_missing: test items left out because a label is missing.
        persons: who is in each test item, codes (n,): people are resampled and permuted as a whole. ``None`` where each
            item is another person.
        weights: how much each test item counts in every metric (n,), as a survey's weights say; ``None`` for all alike.
            Counts of items, and ``min_cell``, are not weighted.
        arms: training set -> how it was made, where the sets are arms of a comparison.
        validation_counts: faces that arms were chosen by, classes x groups; ``None`` without arms.
    """

    target: str
    protected: list[str]
    classes: list[str]
    groups: list[str]
    y_true: np.ndarray
    group: np.ndarray
    predictions: dict[str, np.ndarray]
    training: dict[str, TrainingSummary]
    seeds: list[int]
    settings: classify.FitSettings
    evaluation: EvaluationSettings
    num_test_missing: int
    persons: np.ndarray | None = None
    weights: np.ndarray | None = None
    arms: Mapping[str, ArmSummary] = field(default_factory=dict)
    validation_counts: pd.DataFrame | None = None

    def _glance(self) -> Glance:
        sets = list(self.predictions)
        means = [(metric.title, [self.per_seed[name][key].mean() for name in sets]) for key, metric in METRICS.items()]
        rows = [(title, *map(float, values)) for title, values in means]
        line = f"{self.target} by {' x '.join(self.protected)}; {', '.join(sets)}; {plural(len(self.seeds), 'seed')}"
        return Glance(line, ("metric, mean over seeds", *sets), rows)

    # -- computed once ------------------------------------------------------------------------------------------------

    @property
    def _tally(self) -> partial[np.ndarray]:
        return partial(tally, num_groups=len(self.groups), num_classes=len(self.classes))

    def _counts(self, predictions: np.ndarray) -> np.ndarray:
        """Class codes (seeds, n) => counts (seeds, groups, classes, classes), weighted where items are."""
        return self._tally(self.group, self.y_true, predictions, weights=self.weights)

    @property
    def _sizes(self) -> np.ndarray:
        """How many items there are (groups, classes, classes), as if all were classified correctly."""
        return self._tally(self.group, self.y_true, self.y_true)

    def _metrics(self, counts: np.ndarray) -> dict[str, np.ndarray]:
        observed = None if self.weights is None else self._sizes
        values = metrics_from_counts(counts, **self.evaluation.for_counts(self.classes), observed=observed)
        cells = share(np.einsum("...gcc->...gc", counts), counts.sum(-1))
        return {name: values[name] for name in METRICS} | {"cells": cells}

    @cached_property
    def per_seed(self) -> dict[str, dict[str, np.ndarray]]:
        """Training set -> metric -> values (seeds,)."""
        return {name: self._metrics(self._counts(codes)) for name, codes in self.predictions.items()}

    @cached_property
    def _fits(self) -> dict[str, Fits]:
        """Training set -> its classifiers' counts with resamples of test items, or people, and of seeds.

        Both are the same for all training sets, so that differences are paired.
        """
        persons = np.arange(len(self.y_true)) if self.persons is None else self.persons
        each = np.ones(len(persons)) if self.weights is None else self.weights
        how = self.evaluation
        found = {}
        for name, predictions in self.predictions.items():
            n = self._counts(predictions)
            resamples = tuple(
                resampled_items(
                    Counts(one, self.classes, self.groups, (self.group, self.y_true, codes)),
                    persons,
                    each,
                    how.bootstrap,
                    how.seed,
                )
                for one, codes in zip(n, predictions, strict=True)
            )
            found[name] = Fits.of_seeds(n, resamples, how.seed)
        return found

    @cached_property
    def _deviations(self) -> dict[str, dict[str, np.ndarray]]:
        """Training set -> metric -> by how much its mean over seeds is off by chance (num_resamples, ...).

        A gap is above the true one in resamples, too; what is left of that is taken out, for it is in both sides of a
        difference.
        """
        found = {name: fits.deviations(self._metrics) for name, fits in self._fits.items()}
        return {
            name: {metric: drawn - np.nanmean(drawn, axis=0) for metric, drawn in metrics.items()}
            for name, metrics in found.items()
        }

    def _draws(self, name: str, metric: str) -> np.ndarray:
        """Resampled means over seeds (num_resamples, ...)."""
        return self.per_seed[name][metric].mean(0) + self._deviations[name][metric]

    @cached_property
    def _intervals(self) -> dict[str, dict[str, tuple[float, float]]]:
        """Training set -> metric -> interval of its mean over seeds; those of gaps hold for any number of groups."""
        how, level = self.evaluation.for_counts(self.classes), self.evaluation.level
        return {name: intervals(fits, sizes=self._sizes, level=level, how=how) for name, fits in self._fits.items()}

    @property
    def has_intervals(self) -> bool:
        """Whether anything was resampled."""
        return self.evaluation.bootstrap > 0

    def _interval(self, draws: np.ndarray) -> tuple[float, float]:
        return interval(draws, self.evaluation.level)

    @cached_property
    def summary(self) -> dict[str, dict[str, dict[str, float]]]:
        """Training set -> metric -> mean over seeds (``mean``), its interval (``low``, ``high``), the change from the
        first training set with its paired interval (``change``, ``change_low``, ``change_high``), and for gaps the
        level that chance alone gives (``chance``). NaN stands for what was not asked for.
        """
        first = next(iter(self.predictions))
        summary: dict[str, dict[str, dict[str, float]]] = {}
        for name, metrics in self.per_seed.items():
            summary[name] = {}
            for metric in METRICS:
                row = dict.fromkeys(SUMMARY, float("nan"))
                row["mean"] = float(metrics[metric].mean())
                row["chance"] = self.chance[name].get(metric, float("nan"))
                if self.has_intervals:
                    row["low"], row["high"] = self._intervals[name][metric]
                if name != first:
                    row["change"] = row["mean"] - float(self.per_seed[first][metric].mean())
                    if self.has_intervals:
                        paired = self._draws(name, metric) - self._draws(first, metric)
                        row["change_low"], row["change_high"] = self._interval(paired)
                summary[name][metric] = row
        return summary

    @cached_property
    def table(self) -> pd.DataFrame:
        """:attr:`summary` as a table, one row per training set and metric."""
        rows = {(name, metric): row for name, metrics in self.summary.items() for metric, row in metrics.items()}
        index = pd.MultiIndex.from_tuples(list(rows), names=["training_set", "metric"])
        return pd.DataFrame(list(rows.values()), index=index, columns=list(SUMMARY))

    @cached_property
    def chance(self) -> dict[str, dict[str, float]]:
        """Training set -> gap -> its mean with groups permuted among people of one class: what noise alone gives."""
        levels: dict[str, dict[str, float]] = {}
        for name, codes in self.predictions.items():
            nulls = [self._metrics(self._permuted(one, seed)) for seed, one in enumerate(codes)]
            levels[name] = {gap: float(np.mean([null[gap].mean() for null in nulls])) for gap in CHANCE_GAPS}
        return levels

    def _permuted(self, codes: np.ndarray, seed: int) -> np.ndarray:
        """Counts (permutations, g, y, p) with the groups of people permuted, or of items where each is a person."""
        if self.persons is None and self.weights is None:
            return permuted_counts(self._counts(codes[None])[0], NUM_PERMUTATIONS, seed)
        persons = np.arange(len(codes)) if self.persons is None else self.persons
        dealt = permuted_groups(self.group, self.y_true, persons, NUM_PERMUTATIONS, seed)
        return self._tally(dealt, self.y_true, codes, weights=self.weights)

    @cached_property
    def cells(self) -> pd.DataFrame:
        """One row per training set and cell: accuracy (mean over seeds), interval, test and training counts."""
        rows = []
        support = self._sizes.sum(-1)
        for name, metrics in self.per_seed.items():
            counts = self.training[name].counts
            for g, group in enumerate(self.groups):
                for c, label in enumerate(self.classes):
                    has_column = label in counts.index and group in counts.columns
                    row = {
                        "training_set": name,
                        "class": label,
                        "group": group,
                        "accuracy": float(metrics["cells"][:, g, c].mean()),
                        "num_test": int(support[g, c]),
                        "num_train": int(np.asarray(counts.loc[label, group])) if has_column else 0,
                    }
                    if self.has_intervals:
                        row["low"], row["high"] = np.clip(self._interval(self._draws(name, "cells")[:, g, c]), 0, 1)
                    rows.append(row)
        columns = ["training_set", "class", "group", "accuracy", "low", "high", "num_test", "num_train"]
        return pd.DataFrame(rows).reindex(columns=columns)

    def dominated(self, gap: str = "equalized_odds_difference") -> dict[str, list[str]]:
        """Training set -> those that are at least as accurate with a gap at most as large, and better in one, by means.

        Args:
            gap: a metric of :data:`GAPS`.
        """
        means = {
            name: (float(rows["accuracy"].mean()), float(rows[gap].mean())) for name, rows in self.per_seed.items()
        }
        return {
            name: [other for other, its in means.items() if outdoes(its[0] - mine[0], its[1] - mine[1])]
            for name, mine in means.items()
        }

    def share_of_oracle_cut(
        self, name: str = "balanced", *, baseline: str = "baseline", oracle: str = "oracle"
    ) -> dict[str, dict[str, float | None]]:
        """How much of what perfect edits cut was cut: (baseline - name) / (baseline - oracle), for each gap.

        Returns:
            Gap -> value, low, high. ``None`` where the oracle cuts nothing, and for the interval where that is not
            sure (more than 5 % of the resamples).

        Raises:
            ConfigError: one of the three was not trained.
        """
        for needed in (name, baseline, oracle):
            if needed not in self.predictions:
                raise ConfigError(f"no training set '{needed}' in this audit; it has {', '.join(self.predictions)}.")
        shares: dict[str, dict[str, float | None]] = {}
        for gap in GAPS:
            mean = {key: float(self.per_seed[key][gap].mean()) for key in (name, baseline, oracle)}
            cut = mean[baseline] - mean[oracle]
            row: dict[str, float | None] = {"value": None, "low": None, "high": None}
            if cut > 0:
                row["value"] = (mean[baseline] - mean[name]) / cut
                if self.has_intervals:
                    draws = {key: self._draws(key, gap) for key in (name, baseline, oracle)}
                    low, high = self._interval(share(draws[baseline] - draws[name], draws[baseline] - draws[oracle]))
                    if np.isfinite(low):
                        row["low"], row["high"] = low, high
            shares[gap] = row
        return shares

    def to_dict(self) -> dict[str, Any]:
        """Plain values for ``report.json``: ``classifiers`` by training set, and how they were made in ``audit``."""
        classifiers: dict[str, Any] = {}
        dominated = self.dominated()
        for name, training in self.training.items():
            rows = self.summary[name]
            entry: dict[str, Any] = {metric: json_value(rows[metric]["mean"], 6) for metric in METRICS}
            entry["per_seed"] = {
                metric: [json_value(value, 6) for value in self.per_seed[name][metric]] for metric in METRICS
            }
            if self.has_intervals:
                entry["intervals"] = {m: [json_value(rows[m][end], 6) for end in ("low", "high")] for m in METRICS}
            if name != next(iter(self.training)):
                keys = ("change", "change_low", "change_high") if self.has_intervals else ("change",)
                entry["change"] = {m: [json_value(rows[m][key], 6) for key in keys] for m in METRICS}
            entry["chance"] = {gap: json_value(value, 6) for gap, value in self.chance[name].items()}
            cells = self.cells[self.cells["training_set"] == name].drop(columns="training_set")
            entry["cells"] = json_records(cells, 6)
            entry["training_set"] = {
                "num_images": training.num_images,
                "num_missing": training.num_missing,
                "num_made": training.num_made,
                "num_in_test": training.num_in_test,
            }
            if name in self.arms:
                chosen = {key: json_value(value, 6) for key, value in self.arms[name].chosen.items()}
                entry |= {"arm": self.arms[name].text, "chosen": chosen, "dominated_by": dominated[name]}
            classifiers[name] = entry
        details = {
            "target": self.target,
            "protected": self.protected,
            "classes": self.classes,
            "groups": self.groups,
            "positive": self.evaluation.positive,
            "over_classes": self.evaluation.over_classes,
            "min_cell": self.evaluation.min_cell,
            "seeds": self.seeds,
            "level": self.evaluation.level,
            "bootstrap": self.evaluation.bootstrap,
            "num_test": len(self.y_true),
            "num_test_missing": self.num_test_missing,
            **({} if self.weights is None else {"weighted": True}),
            "settings": {key: value for key, value in asdict(self.settings).items() if key not in ("seed", "device")},
        }
        if {"baseline", "balanced", "oracle"} <= set(self.predictions):
            shares = self.share_of_oracle_cut()
            details["share_of_oracle_cut"] = {
                gap: {key: json_value(value, 6) for key, value in row.items()} for gap, row in shares.items()
            }
        return {"classifiers": classifiers, "audit": details}
