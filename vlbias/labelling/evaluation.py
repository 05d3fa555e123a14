"""How far a labeller can be trusted: its labels against given ones."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import cohen_kappa_score, roc_auc_score

from vlbias.arguments import checked_call
from vlbias.errors import LabelError
from vlbias.files import json_value
from vlbias.labelling.labels import Labels
from vlbias.labels import in_order, label_text, label_texts
from vlbias.settings import MAX_DRAWS, checked_number
from vlbias.shown import printable

__all__ = ["LabelEvaluation", "Separation", "evaluate", "separation"]

#: Column of a confusion for the faces that got no label.
_NO_LABEL = "(none)"
# Edges of the confidence bands; the last holds 1.
_BANDS = (0.0, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)


@dataclass(frozen=True)
class LabelEvaluation:
    """A labeller scored against given labels.

    Attributes:
        confusion: counts; rows are given labels, columns the labeller's, and a last column ``(none)`` for the faces
            that it left without a label.
        num_compared: faces with a given label.
        coverage: share of these that the labeller labelled.
        accuracy: share of the labelled ones that agree, with ``accuracy_low`` and ``accuracy_high`` (Wilson, 95 %).
        balanced_accuracy: mean over the given labels of the share that agrees.
        kappa: Cohen's, agreement beyond chance; 1 is perfect, 0 chance. NaN where both sides know one word alone.
        recall, precision: by label, as text. NaN where there is nothing to divide by.
        by_confidence: a row for each band of confidence with ``num`` and ``accuracy``; a labeller whose confidence
            means what it says has an accuracy inside each band.
    """

    confusion: pd.DataFrame
    num_compared: int
    coverage: float
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    balanced_accuracy: float
    kappa: float
    recall: dict[str, float]
    precision: dict[str, float]
    by_confidence: pd.DataFrame

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; NaN becomes None."""
        numbers = {
            name: json_value(getattr(self, name))
            for name in ("num_compared", "coverage", "accuracy", "accuracy_low", "accuracy_high", "balanced_accuracy")
        }
        return numbers | {
            "kappa": json_value(self.kappa),
            "recall": {name: json_value(value) for name, value in self.recall.items()},
            "precision": {name: json_value(value) for name, value in self.precision.items()},
            "labels": list(self.confusion.index),
            "columns": list(self.confusion.columns),
            "confusion": self.confusion.to_numpy().tolist(),
            "by_confidence": [
                {"band": str(band), "num": int(row["num"]), "accuracy": json_value(row["accuracy"])}
                for band, row in self.by_confidence.iterrows()
            ],
        }

    def __str__(self) -> str:
        return (
            f"{self.num_compared} faces, {self.coverage:.1%} labelled; accuracy {self.accuracy:.1%} "
            f"[{self.accuracy_low:.1%}, {self.accuracy_high:.1%}], balanced {self.balanced_accuracy:.1%}, "
            f"kappa {self.kappa:.2f}\n{printable(self.confusion.to_string(), keep=chr(10))}"
        )


@checked_call
def evaluate(labels: Labels, given: pd.Series) -> LabelEvaluation:
    """Score a labeller.

    Args:
        labels: what it gave.
        given: labels to hold it to, indexed by face id, in the same words (1, 1.0 and True are one); faces where it
            is missing do not count.

    Raises:
        LabelError: no face in common, or no word in common (so that "Male" is not silently wrong for "male").

    Example:
        >>> table = pd.DataFrame({"label": ["a", "b"], "confidence": [0.9, 0.9], "reason": None}, index=["1", "2"])
        >>> evaluate(Labels("toy", table), pd.Series(["a", "a"], index=["1", "2"])).accuracy
        0.5
    """
    if given.index.has_duplicates:
        twice = given.index[given.index.duplicated()][0]
        raise LabelError(f"`given` has the id {twice!r} twice. Keep one label per face.")
    given = label_texts(given).dropna()
    table = labels.table.reindex(given.index)
    if len(given) == 0 or not labels.table.index.isin(given.index).any():
        raise LabelError("no face has both a given label and a row of the labeller. Use the ids of one dataset.")
    found = label_texts(table["label"])
    words, found_words = in_order(given), in_order(found.dropna())
    if found_words and not set(words) & set(found_words):
        raise LabelError(
            f"the labeller's words {found_words} are not among the given {words}. Name its classes as the dataset does."
        )
    columns = in_order([*words, *found_words])
    labelled = found.notna().to_numpy()
    right = (found == given).to_numpy()
    num_labelled = int(labelled.sum())
    counts = pd.crosstab(given.to_numpy(), found.fillna(_NO_LABEL).to_numpy())
    confusion = counts.reindex(index=words, columns=[*columns, _NO_LABEL], fill_value=0)
    confusion.index.name, confusion.columns.name = "given", "labeller"
    recall = {word: _share(right, labelled & (given == word).to_numpy()) for word in words}
    precision = {word: _share(right, labelled & (found == word).to_numpy()) for word in columns}
    known = [value for value in recall.values() if not np.isnan(value)]
    low, high = _wilson(int(right.sum()), num_labelled)
    pairs = given.to_numpy()[labelled], found.to_numpy()[labelled]
    return LabelEvaluation(
        confusion=confusion,
        num_compared=len(given),
        coverage=float(labelled.mean()),
        accuracy=_share(right, labelled),
        accuracy_low=low,
        accuracy_high=high,
        balanced_accuracy=float(np.mean(known)) if known else float("nan"),
        kappa=_kappa(*pairs),
        recall=recall,
        precision=precision,
        by_confidence=_by_confidence(table["confidence"].to_numpy(float), labelled, right),
    )


@dataclass(frozen=True)
class Separation:
    """How a measured number tells two given groups apart.

    Attributes:
        auc: probability that a face of the upper group measures higher than one of the lower (area under the ROC
            curve), with its bootstrap interval ``auc_low``, ``auc_high`` (95 %).
        threshold: the best cut, by balanced accuracy on every second face.
        balanced_accuracy: of that cut on the other faces.
        wrong_upper, wrong_lower: share of each group on the wrong side of the cut, on those other faces.
        num_upper, num_lower: faces in each group that could be measured.
    """

    auc: float
    auc_low: float
    auc_high: float
    threshold: float
    balanced_accuracy: float
    wrong_upper: float
    wrong_lower: float
    num_upper: int
    num_lower: int


@checked_call
def separation(
    measured: pd.Series, given: pd.Series, *, upper: object, lower: object, num_resamples: int = 500, seed: int = 0
) -> Separation:
    """Score a number such as ITA against two given groups.

    Args:
        measured: the number, indexed by face id; missing ones do not count.
        given: the groups, indexed by face id.
        upper, lower: the groups that should measure high and low.
        num_resamples: of the bootstrap, >= 1.
        seed: of the bootstrap and of the halves.

    Raises:
        LabelError: a group of fewer than four measured faces.
        ConfigError: ``num_resamples`` is out of range.
    """
    checked_number("num_resamples", num_resamples, low=1, high=MAX_DRAWS)
    texts = label_texts(given.reindex(measured.index))
    groups = [measured[texts == label_text(name)].dropna().to_numpy(float) for name in (upper, lower)]
    for name, values in zip((upper, lower), groups, strict=True):
        if len(values) < 4:
            raise LabelError(f"the group '{name}' has {len(values)} measured faces; at least 4 are needed.")
    generator = np.random.default_rng(seed)
    resampled = [
        _auc(*(values[generator.integers(len(values), size=len(values))] for values in groups))
        for _ in range(num_resamples)
    ]
    shuffled = [generator.permutation(values) for values in groups]
    threshold = _best_cut(*(values[::2] for values in shuffled))
    wrong_upper = float((shuffled[0][1::2] < threshold).mean())
    wrong_lower = float((shuffled[1][1::2] >= threshold).mean())
    return Separation(
        auc=_auc(*groups),
        auc_low=float(np.percentile(resampled, 2.5)),
        auc_high=float(np.percentile(resampled, 97.5)),
        threshold=threshold,
        balanced_accuracy=1 - (wrong_upper + wrong_lower) / 2,
        wrong_upper=wrong_upper,
        wrong_lower=wrong_lower,
        num_upper=len(groups[0]),
        num_lower=len(groups[1]),
    )


def _auc(upper: np.ndarray, lower: np.ndarray) -> float:
    truth = np.concatenate([np.ones(len(upper)), np.zeros(len(lower))])
    return float(roc_auc_score(truth, np.concatenate([upper, lower])))


def _best_cut(upper: np.ndarray, lower: np.ndarray) -> float:
    """The cut, halfway between two measured values, of the best balanced accuracy."""
    values = np.unique(np.concatenate([upper, lower]))
    cuts = (values[1:] + values[:-1]) / 2 if len(values) > 1 else values
    above = 1 - np.searchsorted(np.sort(upper), cuts) / len(upper)
    below = np.searchsorted(np.sort(lower), cuts) / len(lower)
    return float(cuts[(above + below).argmax()])


def _by_confidence(confidence: np.ndarray, labelled: np.ndarray, right: np.ndarray) -> pd.DataFrame:
    rows = {}
    for low, high in itertools.pairwise(_BANDS):
        inside = labelled & (confidence >= low) & ((confidence < high) | (high == _BANDS[-1]))
        rows[f"{low:.2f}-{high:.2f}"] = {"num": int(inside.sum()), "accuracy": _share(right, inside)}
    return pd.DataFrame.from_dict(rows, orient="index")


def _kappa(given: np.ndarray, found: np.ndarray) -> float:
    # where only one word occurs, all agreement is by chance
    return float(cohen_kappa_score(given, found)) if len({*given, *found}) > 1 else float("nan")


def _share(right: np.ndarray, among: np.ndarray) -> float:
    return float(right[among].mean()) if among.any() else float("nan")


def _wilson(hits: int, total: int, z: float = 1.959964) -> tuple[float, float]:
    """Wilson's 95 % interval of a share (Wilson, 1927); NaN where nothing was counted."""
    if total == 0:
        return float("nan"), float("nan")
    share = hits / total
    centre = (share + z**2 / (2 * total)) / (1 + z**2 / total)
    half = z * np.sqrt(share * (1 - share) / total + z**2 / (4 * total**2)) / (1 + z**2 / total)
    # the limits of none and of all are 0 and 1; rounding must not put them beside the share
    return (0.0 if hits == 0 else float(centre - half)), (1.0 if hits == total else float(centre + half))
