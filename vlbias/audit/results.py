"""What an audit found: every classifier's answers, and what they say of accuracy and fairness, with intervals."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from vlbias import classify
from vlbias.errors import ConfigError
from vlbias.fairness import METRICS, EvaluationSettings, interval, metrics_from_counts, permuted_counts, tally
from vlbias.fairness.metrics import share
from vlbias.shown import Glance, Shown

__all__ = ["CHANCE_GAPS", "AuditResult", "TrainingSummary"]

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

    def _glance(self) -> Glance:
        sets = list(self.predictions)
        means = [(metric.title, [self.per_seed[name][key].mean() for name in sets]) for key, metric in METRICS.items()]
        rows = [(title, *map(float, values)) for title, values in means]
        line = f"{self.target} by {' x '.join(self.protected)}; {', '.join(sets)}; {len(self.seeds)} seeds"
        return Glance(line, ("metric, mean over seeds", *sets), rows)

    # -- computed once ------------------------------------------------------------------------------------------------

    def _counts(self, predictions: np.ndarray, items: np.ndarray | slice = slice(None)) -> np.ndarray:
        """Class codes (seeds, n) => counts (seeds, groups, classes, classes)."""
        return tally(
            self.group[items],
            self.y_true[items],
            predictions[:, items],
            num_groups=len(self.groups),
            num_classes=len(self.classes),
        )

    def _metrics(self, counts: np.ndarray) -> dict[str, np.ndarray]:
        values = metrics_from_counts(counts, **self.evaluation.for_counts(self.classes))
        cells = share(np.einsum("...gcc->...gc", counts), counts.sum(-1))
        return {name: values[name] for name in METRICS} | {"cells": cells}

    @cached_property
    def per_seed(self) -> dict[str, dict[str, np.ndarray]]:
        """Training set -> metric -> values (seeds,)."""
        return {name: self._metrics(self._counts(codes)) for name, codes in self.predictions.items()}

    @cached_property
    def _draws(self) -> dict[str, dict[str, np.ndarray]]:
        """Training set -> metric -> resampled means over seeds (num_resamples,).

        Two sources of chance are resampled: test items within each cell, the same ones for all training sets (so that
        differences are paired), and the seeds of each training set.
        """
        rng = np.random.default_rng(0)
        cells = self.group * len(self.classes) + self.y_true
        members = [np.flatnonzero(cells == cell) for cell in np.unique(cells)]
        resampled: dict[str, list[np.ndarray]] = {name: [] for name in self.predictions}
        for _ in range(self.evaluation.bootstrap):
            items = np.concatenate([rng.choice(group, len(group)) for group in members])
            for name, codes in self.predictions.items():
                resampled[name].append(self._counts(codes[rng.integers(len(codes), size=len(codes))], items))
        draws = {}
        for name, tables in resampled.items():
            values = self._metrics(np.stack(tables))
            draws[name] = {metric: value.mean(1) for metric, value in values.items()}
        return draws

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
                    row["low"], row["high"] = self._interval(self._draws[name][metric])
                if name != first:
                    row["change"] = row["mean"] - float(self.per_seed[first][metric].mean())
                    if self.has_intervals:
                        paired = self._draws[name][metric] - self._draws[first][metric]
                        row["change_low"], row["change_high"] = self._interval(paired)
                summary[name][metric] = row
        return summary

    @cached_property
    def table(self) -> pd.DataFrame:
        """:attr:`summary` as a table, one row a training set and metric."""
        rows = {(name, metric): row for name, metrics in self.summary.items() for metric, row in metrics.items()}
        index = pd.MultiIndex.from_tuples(list(rows), names=["training_set", "metric"])
        return pd.DataFrame(list(rows.values()), index=index, columns=list(SUMMARY))

    @cached_property
    def chance(self) -> dict[str, dict[str, float]]:
        """Training set -> gap -> its mean with group labels permuted within each class: what noise alone gives."""
        levels: dict[str, dict[str, float]] = {}
        for name, codes in self.predictions.items():
            seeds = enumerate(self._counts(codes))
            nulls = [self._metrics(permuted_counts(counts, NUM_PERMUTATIONS, seed)) for seed, counts in seeds]
            levels[name] = {gap: float(np.mean([null[gap].mean() for null in nulls])) for gap in CHANCE_GAPS}
        return levels

    @cached_property
    def cells(self) -> pd.DataFrame:
        """One row a training set and cell: accuracy (mean over seeds), interval, test and training counts."""
        rows = []
        support = self._counts(self.y_true[None])[0].sum(-1)
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
                        row["low"], row["high"] = self._interval(self._draws[name]["cells"][:, g, c])
                    rows.append(row)
        columns = ["training_set", "class", "group", "accuracy", "low", "high", "num_test", "num_train"]
        return pd.DataFrame(rows).reindex(columns=columns)

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
                    draws = {key: self._draws[key][gap] for key in (name, baseline, oracle)}
                    low, high = self._interval(share(draws[baseline] - draws[name], draws[baseline] - draws[oracle]))
                    if np.isfinite(low):
                        row["low"], row["high"] = low, high
            shares[gap] = row
        return shares

    def to_dict(self) -> dict[str, Any]:
        """Plain values for ``report.json``: ``classifiers`` by training set, and how they were made in ``audit``."""
        classifiers: dict[str, Any] = {}
        for name, training in self.training.items():
            rows = self.summary[name]
            entry: dict[str, Any] = {metric: _number(rows[metric]["mean"]) for metric in METRICS}
            entry["per_seed"] = {
                metric: [_number(value) for value in self.per_seed[name][metric]] for metric in METRICS
            }
            if self.has_intervals:
                entry["intervals"] = {m: [_number(rows[m]["low"]), _number(rows[m]["high"])] for m in METRICS}
            if name != next(iter(self.training)):
                keys = ("change", "change_low", "change_high") if self.has_intervals else ("change",)
                entry["change"] = {m: [_number(rows[m][key]) for key in keys] for m in METRICS}
            entry["chance"] = {gap: _number(value) for gap, value in self.chance[name].items()}
            cells = self.cells[self.cells["training_set"] == name].drop(columns="training_set")
            entry["cells"] = [{str(k): _number(v) for k, v in row.items()} for row in cells.to_dict("records")]
            entry["training_set"] = {
                "num_images": training.num_images,
                "num_missing": training.num_missing,
                "num_made": training.num_made,
                "num_in_test": training.num_in_test,
            }
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
            "settings": {key: value for key, value in asdict(self.settings).items() if key not in ("seed", "device")},
        }
        if {"baseline", "balanced", "oracle"} <= set(self.predictions):
            shares = self.share_of_oracle_cut()
            details["share_of_oracle_cut"] = {
                gap: {key: _number(value) for key, value in row.items()} for gap, row in shares.items()
            }
        return {"classifiers": classifiers, "audit": details}


def _number(value: object) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        # Six digits are far below sampling noise and keep the file the same across libraries.
        return round(value, 6) if np.isfinite(value) else None
    return value
