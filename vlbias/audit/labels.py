"""Who is in a dataset: labels in one spelling, groups, and the count of each cell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from vlbias.errors import ConfigError

if TYPE_CHECKING:
    from vlbias.data import FaceDataset

__all__ = ["Composition", "composition", "groups_of", "labels_of", "plain", "protected_columns", "sorted_labels"]


@dataclass(frozen=True)
class Composition:
    """Who is in a dataset.

    Attributes:
        name: of the dataset.
        target: column that classifiers predict.
        protected: columns that must not drive them.
        counts: rows are classes, columns are groups.
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
        from scipy.stats.contingency import association

        table = self.counts.to_numpy()
        table = table[table.sum(1) > 0][:, table.sum(0) > 0]
        return float(association(table, method="cramer")) if min(table.shape) > 1 else 0.0

    @property
    def balance(self) -> float:
        """Smallest by largest cell count, the smallest over classes: 1 where each class holds as many of each group."""
        table = self.counts.to_numpy()
        table = table[table.sum(1) > 0]
        return float((table.min(1) / table.max(1)).min()) if len(table) else 0.0

    def to_dict(self) -> dict[str, Any]:
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


def composition(dataset: FaceDataset, *, target: str, protected: str | Sequence[str]) -> Composition:
    """Count the cells (class x group) of a dataset, all splits together; use ``dataset.split(...)`` for one.

    Raises:
        UnknownNameError: no such column.
        ConfigError: the target is among the protected attributes.
    """
    columns = protected_columns(target, protected)
    classes, groups = labels_of(dataset, target), groups_of(dataset, columns)
    known = classes.notna() & groups.notna()
    counts = pd.crosstab(classes[known], groups[known])
    counts = counts.reindex(index=sorted_labels(counts.index), columns=sorted_labels(counts.columns))
    return Composition(dataset.name, target, columns, counts, int((~known).sum()))


def protected_columns(target: str, protected: str | Sequence[str]) -> list[str]:
    columns = [protected] if isinstance(protected, str) else list(protected)
    if not columns:
        raise ConfigError("`protected` is empty; name at least one attribute.")
    if target in columns:
        raise ConfigError(f"`target` and `protected` are both '{target}'; choose two attributes.")
    return columns


def plain(value: Any) -> Any:
    """One spelling of a label, whichever file it came from: True and 1.0 become 1; missing becomes None."""
    if value is None or (not isinstance(value, str) and pd.isna(value)):
        return None
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bool) or (isinstance(value, float) and value.is_integer()):
        return int(value)
    return value


def labels_of(dataset: FaceDataset, column: str) -> pd.Series:
    series = dataset.column(column)
    return pd.Series([plain(value) for value in series], index=series.index, dtype=object)


def groups_of(dataset: FaceDataset, columns: Sequence[str]) -> pd.Series:
    parts = [labels_of(dataset, column) for column in columns]
    if len(parts) == 1:
        return parts[0]
    rows = zip(*parts, strict=True)
    joined = [None if any(part is None for part in row) else " & ".join(map(str, row)) for row in rows]
    return pd.Series(joined, index=parts[0].index, dtype=object)


def sorted_labels(values: Any) -> list[Any]:
    return sorted(values, key=lambda item: (isinstance(item, str), item))
