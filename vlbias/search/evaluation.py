"""The objective table: error and gaps of one model on one split, also for reweighted people (bootstrap)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from vlbias.errors import LabelError
from vlbias.fairness import metrics_from_counts, tally
from vlbias.search.metrics import IdentificationRanks, group_table

__all__ = ["CLASSIFY_OBJECTIVES", "IDENTIFY_OBJECTIVES", "Evaluation"]

#: All minimised. A gap is max - min over groups, a ratio gap is 1 - min / max.
IDENTIFY_OBJECTIVES = (
    "error",
    "worst_error",
    "error_gap",
    "accuracy_ratio_gap",
    "error_ratio_gap",
    "rank",
    "worst_rank",
    "rank_gap",
    "rank_ratio_gap",
    "image_rank",
    "image_rank_gap",
)
CLASSIFY_OBJECTIVES = (
    "error",
    "worst_error",
    "error_gap",
    "accuracy_ratio_gap",
    "error_ratio_gap",
    "f1_error",
    "f1_gap",
    "demographic_parity_gap",
    "demographic_parity_ratio_gap",
    "equal_opportunity_gap",
    "equalized_odds_gap",
)


@dataclass(frozen=True)
class Evaluation:
    """What one model did on each image of a split.

    Attributes:
        kind: "identify" or "classify".
        group_names: names of the groups.
        groups, persons: int64 (n,).
        outcome: "identify": float64 (2, n), rank_by_id and rank_by_image, NaN without a mate.
            "classify": int64 (2, n), true and predicted class.
        num_classes: of the target; 0 in "identify".
        diversity: how far embeddings lie apart (mean standard deviation of unit vectors), or the number of distinct
            predictions: a collapsed model is recognised by it.
    """

    kind: str
    group_names: tuple[str, ...]
    groups: np.ndarray
    persons: np.ndarray
    outcome: np.ndarray
    num_classes: int = 0
    diversity: float = float("nan")

    @property
    def num_singletons(self) -> int:
        """Images whose person has no second one; 0 in "classify"."""
        return int(np.isnan(self.outcome[0]).sum()) if self.kind == "identify" else 0

    @property
    def is_collapsed(self) -> bool:
        """Everything looks the same to the model: its gap of zero says nothing."""
        if self.kind == "identify":
            return not self.diversity > 1e-4
        return self.diversity < 2

    def objectives(self, weights: np.ndarray | None = None) -> dict[str, Any]:
        """Name -> value, or -> (b,) for weights (b, n) of the images. NaN where a group has no weight at all."""
        w = np.ones((1, len(self.groups))) if weights is None else np.atleast_2d(np.asarray(weights, dtype=float))
        if w.shape[1] != len(self.groups):
            raise LabelError(f"`weights` must be (b, {len(self.groups)}); got {w.shape}.")
        with np.errstate(divide="ignore", invalid="ignore"):
            values = self._identify(w) if self.kind == "identify" else self._classify(w)
        return {name: float(value[0]) if weights is None else value for name, value in values.items()}

    def table(self) -> pd.DataFrame:
        """One row per group."""
        names = np.asarray(self.group_names)[self.groups]
        if self.kind == "identify":
            return group_table(IdentificationRanks(*self.outcome), names, self.persons)
        frame = pd.DataFrame({"group": names, "right": self.outcome[0] == self.outcome[1]})
        grouped = frame.groupby("group", sort=True)["right"]
        return pd.DataFrame({"images": grouped.size(), "accuracy": grouped.mean(), "error": 1 - grouped.mean()})

    def _group_sums(self, w: np.ndarray, values: np.ndarray) -> np.ndarray:
        """(b, n) weights and (n,) values => (b, g) weighted sums."""
        members = np.zeros((len(self.groups), len(self.group_names)))
        members[np.arange(len(self.groups)), self.groups] = values
        return w @ members

    def _identify(self, w: np.ndarray) -> dict[str, np.ndarray]:
        by_id, by_image = self.outcome
        known = ~np.isnan(by_id)
        mass = self._group_sums(w, known.astype(float))
        wrong = self._group_sums(w, np.where(known, by_id > 0, 0).astype(float))
        rank = self._group_sums(w, np.nan_to_num(by_id))
        image = self._group_sums(w, np.nan_to_num(by_image))
        total = mass.sum(1)
        error, ranks, images = wrong / mass, rank / mass, image / mass
        return {
            **_errors(wrong.sum(1) / total, error),
            "rank": rank.sum(1) / total,
            "worst_rank": ranks.max(1),
            "rank_gap": _gap(ranks),
            "rank_ratio_gap": 1 - _ratio(ranks),
            "image_rank": image.sum(1) / total,
            "image_rank_gap": _gap(images),
        }

    def _classify(self, w: np.ndarray) -> dict[str, np.ndarray]:
        true, predicted = self.outcome
        g, c = len(self.group_names), self.num_classes
        counts = tally(self.groups, true, predicted, num_groups=g, num_classes=c, weights=w)
        return classification_objectives(counts)


def classification_objectives(counts: np.ndarray) -> dict[str, np.ndarray]:
    """Counts (b, groups, true class, predicted class) => objectives (b,); gaps and ratios are means over classes."""
    metrics = metrics_from_counts(counts, over_classes="mean")
    with np.errstate(divide="ignore", invalid="ignore"):
        error = 1 - np.einsum("bgcc->bg", counts) / counts.sum((2, 3))
    return {
        **_errors(1 - metrics["accuracy"], error),
        "f1_error": 1 - metrics["macro_f1"],
        "f1_gap": _gap(metrics["group_f1"]),
        "demographic_parity_gap": metrics["demographic_parity_difference"],
        "demographic_parity_ratio_gap": 1 - metrics["demographic_parity_ratio"],
        "equal_opportunity_gap": metrics["equal_opportunity_difference"],
        "equalized_odds_gap": metrics["equalized_odds_difference"],
    }


def _errors(overall: np.ndarray, by_group: np.ndarray) -> dict[str, np.ndarray]:
    return {
        "error": overall,
        "worst_error": by_group.max(1),
        "error_gap": _gap(by_group),
        "accuracy_ratio_gap": 1 - _ratio(1 - by_group),
        "error_ratio_gap": 1 - _ratio(by_group),
    }


def _gap(values: np.ndarray) -> np.ndarray:
    return np.ptp(values, axis=1)


def _ratio(values: np.ndarray) -> np.ndarray:
    high = values.max(1)
    return np.where(high == 0, 1.0, values.min(1) / np.where(high == 0, 1.0, high))
