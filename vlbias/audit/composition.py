"""Who is in a dataset: the count of each cell, a class within a group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats.contingency import association

from vlbias.arguments import checked_call
from vlbias.data import FaceDataset
from vlbias.errors import ConfigError, LabelError
from vlbias.labels import group_texts, in_order, label_texts
from vlbias.shown import Glance, Shown

__all__ = ["Composition", "composition", "labels_of", "people_of", "persons_of", "protected_columns"]

#: Columns that say who is shown, where a dataset has them.
PERSON_COLUMNS = ("identity", "person")


@dataclass(frozen=True, repr=False)
class Composition(Shown):
    """Who is in a dataset.

    Attributes:
        name: of the dataset.
        target: column that classifiers predict.
        protected: columns that must not drive them.
        counts: rows are classes, columns are groups, both as text.
        num_missing: rows that lack the target or a protected attribute; they are not in ``counts``.
    """

    name: str
    target: str
    protected: list[str]
    counts: pd.DataFrame
    num_missing: int

    @property
    def association(self) -> float:
        """Cramer's V of target and group: 0 independent, 1 the one tells the other."""
        table = self.counts.to_numpy()
        table = table[table.sum(1) > 0][:, table.sum(0) > 0]
        return float(association(table, method="cramer")) if min(table.shape) > 1 else 0.0

    @property
    def balance(self) -> float:
        """Smallest by largest cell count, the smallest over classes: 1 where each class holds as many of each group."""
        table = self.counts.to_numpy()
        table = table[table.sum(1) > 0]
        return float((table.min(1) / table.max(1)).min()) if len(table) else 0.0

    def _glance(self) -> Glance:
        line = f"'{self.name}', {self.target} by {' x '.join(self.protected)}, balance {self.balance:.2f}"
        rows = [(label, *row) for label, row in zip(self.counts.index, self.counts.to_numpy(), strict=True)]
        return Glance(line, (self.target, *self.counts.columns), rows)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        counts = {str(label): {str(group): int(n) for group, n in row.items()} for label, row in self.counts.iterrows()}
        return {
            "name": self.name,
            "target": self.target,
            "protected": self.protected,
            "counts": counts,
            "num_images": int(self.counts.to_numpy().sum()),
            "num_missing": self.num_missing,
            "association": self.association,
            "balance": self.balance,
        }


@checked_call
def composition(dataset: FaceDataset, *, target: str, protected: str | Sequence[str]) -> Composition:
    """Count the cells (class x group) of a dataset, all splits together; use ``dataset.split(...)`` for one.

    Raises:
        UnknownNameError: no such column.
        ConfigError: the target is among the protected attributes.
    """
    columns = protected_columns(target, protected)
    classes, groups = labels_of(dataset, target, columns)
    known = classes.notna() & groups.notna()
    counts = pd.crosstab(classes[known], groups[known])
    counts = counts.reindex(index=in_order(counts.index), columns=in_order(counts.columns))
    return Composition(dataset.name, target, columns, counts, int((~known).sum()))


def labels_of(dataset: FaceDataset, target: str, protected: Sequence[str]) -> tuple[pd.Series, pd.Series]:
    """The class and the group of each face as text, ``None`` where a label is missing.

    Raises:
        UnknownNameError: no such column.
    """
    for column in protected:
        dataset.column(column)
    return label_texts(dataset.column(target)), group_texts(dataset.table, protected)


def people_of(dataset: FaceDataset, column: str | None = None) -> pd.Series:
    """Who is in each face, by id; a face that nothing is known of is a person of its own.

    Args:
        dataset: the faces.
        column: that says it; ``None`` takes "identity" or "person" where there is one.

    Raises:
        UnknownNameError: no such column.
    """
    each = pd.Series(dataset.table.index, index=dataset.table.index, dtype=object)
    named = [column] if column else [name for name in PERSON_COLUMNS if name in dataset.table.columns]
    if not named:
        return each
    texts = label_texts(dataset.column(named[0]))
    return texts.where(texts.notna(), each)


def persons_of(dataset: FaceDataset, column: str | None = None) -> np.ndarray | None:
    """Codes (n,) of who is in each face, ``None`` where everybody is shown once; as :func:`people_of`."""
    people = people_of(dataset, column)
    return None if people.is_unique else np.asarray(pd.factorize(people)[0])


def weights_of(dataset: FaceDataset, column: str | None) -> np.ndarray | None:
    """How much each face counts (n,), as a survey's weights say; ``None`` where no column is named.

    Raises:
        UnknownNameError: no such column.
        LabelError: a weight is missing, negative or no number, or all are 0.
    """
    if column is None:
        return None
    weights = pd.to_numeric(dataset.column(column), errors="coerce").astype(float)
    wrong = ~(np.isfinite(weights) & (weights >= 0))
    if wrong.any():
        item = weights.index[wrong][0]
        raise LabelError(
            f"the weight of '{item}' in '{dataset.name}' is {dataset.column(column)[item]!r}; '{column}' must hold "
            "finite numbers >= 0. Leave such faces out first."
        )
    if not weights.any():
        raise LabelError(f"all weights in '{column}' of '{dataset.name}' are 0; at least one must count.")
    return weights.to_numpy()


def protected_columns(target: str, protected: str | Sequence[str]) -> list[str]:
    """The protected columns as a list.

    Raises:
        ConfigError: none, one twice, or the target among them.
    """
    columns = [protected] if isinstance(protected, str) else list(protected)
    if not columns:
        raise ConfigError("`protected` is empty; name at least one attribute.")
    if len(set(columns)) < len(columns):
        raise ConfigError(f"`protected` names a column twice: {', '.join(columns)}. Name each once.")
    if target in columns:
        raise ConfigError(f"`target` and `protected` are both '{target}'; choose two attributes.")
    return columns
