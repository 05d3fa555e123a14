"""The objective table: error and gaps of one model on one split, also of what it would be without a person."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from vlbias.fairness import metrics_from_counts
from vlbias.search.metrics import IdentificationRanks, Impostors, group_table

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


_FINE = 1e9


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
        impostors: who stood in the way, in "identify". Without them intervals take the gallery as given.
    """

    kind: str
    group_names: tuple[str, ...]
    groups: np.ndarray
    persons: np.ndarray
    outcome: np.ndarray
    num_classes: int = 0
    diversity: float = float("nan")
    impostors: Impostors | None = None

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

    @cached_property
    def mass(self) -> np.ndarray:
        """Images that count in each group (g,): those with a mate in "identify", all in "classify"."""
        return self.sums[:, :, 0].sum(0)

    @cached_property
    def sums(self) -> np.ndarray:
        """Sums over the images of each person within each group (p, g, 1 + s); the first is their number.

        The others are errors, ranks and image ranks in "identify", counts of each true and predicted class (row by
        row) in "classify".
        """
        _, person = np.unique(self.persons, return_inverse=True)
        if self.kind == "identify":
            known = ~np.isnan(self.outcome[0])
            by_id, by_image = np.nan_to_num(self.outcome)
            values = np.stack([known, by_id > 0, by_id, by_image], axis=1).astype(float)
        else:
            cell = self.outcome[0] * self.num_classes + self.outcome[1]
            values = np.c_[np.ones(len(cell)), np.eye(self.num_classes**2)[cell]]
        sums = np.zeros((int(person.max()) + 1, len(self.group_names), values.shape[1]))
        np.add.at(sums, (person, self.groups), values)
        return sums

    @cached_property
    def home(self) -> np.ndarray:
        """The group in which each person has most images (p,), also of people with a single one."""
        _, person = np.unique(self.persons, return_inverse=True)
        images = np.zeros((int(person.max()) + 1, len(self.group_names)))
        np.add.at(images, (person, self.groups), 1)
        return images.argmax(1)

    @property
    def rates(self) -> np.ndarray:
        """Means within each group (g, s) of what :attr:`sums` adds up: all that objectives are made of."""
        return _shares(self.sums.sum(0))

    def rates_without_each(self) -> np.ndarray:
        """The rates (p, g, s) if a person had not been there: neither as a probe nor in the gallery."""
        absent = self.sums.copy()
        if self.impostors is not None:
            absent[:, :, 1] += self.impostors.sole.T
            absent[:, :, 2] += self.impostors.people.T
            absent[:, :, 3] += self.impostors.images.T
        return _shares(self.sums.sum(0) - absent)

    def halves(self) -> tuple[dict[str, float], dict[str, float]]:
        """Objectives of two halves of the people of each group; the same halves for every model."""
        # In the order of a fixed shuffle, every other person of a group.
        order = np.random.default_rng(0).permutation(len(self.home))
        place = np.empty(len(order), dtype=int)
        place[order] = pd.Series(order).groupby(self.home[order]).cumcount()
        rates = [_shares(self.sums[place % 2 == half].sum(0))[None] for half in (0, 1)]
        first, second = ({name: float(value[0]) for name, value in self.objectives_of(each).items()} for each in rates)
        return first, second

    def objectives(self) -> dict[str, float]:
        """Name -> value; NaN where a group has no image that counts, and gaps and ratios of one group alone."""
        return {name: float(value[0]) for name, value in self.objectives_of(self.rates[None]).items()}

    def objectives_of(self, rates: np.ndarray) -> dict[str, np.ndarray]:
        """Objectives (b,) of other rates (b, g, s) in groups of these sizes."""
        with np.errstate(divide="ignore", invalid="ignore"):
            if self.kind == "classify":
                c = self.num_classes
                shape = (-1, len(self.group_names), c, c)
                # Cells without images stay unknown whatever is added to their rates. Metrics are ratios: on this scale
                # a fraction of an image is not mistaken for an empty cell.
                known = self.sums[:, :, 1:].sum(0).reshape(shape).any(3, keepdims=True)
                counts = np.maximum(rates * self.mass[:, None], 0).reshape(shape) * known * _FINE
                return classification_objectives(counts)
            error, rank, image_rank = np.moveaxis(rates, 2, 0)
            share = self.mass / self.mass.sum()
            return {
                **_errors(error @ share, error),
                "rank": rank @ share,
                "worst_rank": rank.max(1),
                "rank_gap": _gap(rank),
                "rank_ratio_gap": 1 - _ratio(rank),
                "image_rank": image_rank @ share,
                "image_rank_gap": _gap(image_rank),
            }

    def table(self) -> pd.DataFrame:
        """One row per group."""
        names = np.asarray(self.group_names)[self.groups]
        if self.kind == "identify":
            by_id, by_image = self.outcome
            return group_table(IdentificationRanks(by_id, by_image, self.impostors), names, self.persons)
        frame = pd.DataFrame({"group": names, "right": self.outcome[0] == self.outcome[1]})
        grouped = frame.groupby("group", sort=True)["right"]
        return pd.DataFrame({"images": grouped.size(), "accuracy": grouped.mean(), "error": 1 - grouped.mean()})


def _shares(sums: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        return sums[..., 1:] / sums[..., :1]


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
    return _compared(values, np.ptp(values, axis=1))


def _ratio(values: np.ndarray) -> np.ndarray:
    high = values.max(1)
    return _compared(values, np.where(high == 0, 1.0, values.min(1) / np.where(high == 0, 1.0, high)))


def _compared(values: np.ndarray, found: np.ndarray) -> np.ndarray:
    """What was found (b,) by comparing groups (b, g); one group alone is compared with nobody."""
    return found if values.shape[1] > 1 else np.full_like(found, np.nan)
