"""What a labeller gives back: a label and a confidence for each face, and why a face has none."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import pandas as pd
import torch

from vlbias.data import FaceDataset
from vlbias.errors import ConfigError, ImageError
from vlbias.settings import checked_number

__all__ = ["Labeller", "Labels"]


@dataclass(frozen=True)
class Labels:
    """Labels that a machine gave.

    Attributes:
        source: who gave them, one sentence; it goes into the dataset's description of the column.
        table: indexed by face id, with ``label`` (None or NA where there is none), ``confidence`` (0..1, NaN where
            there is no label), ``reason`` (why there is none, else None) and whatever more the labeller measured.
    """

    source: str
    table: pd.DataFrame

    def __post_init__(self) -> None:
        missing = [name for name in ("label", "confidence", "reason") if name not in self.table.columns]
        if missing:
            raise ConfigError(f"the table of labels lacks the column {', '.join(missing)}.")

    @property
    def coverage(self) -> float:
        """Share of the faces that have a label."""
        return float(self.table["label"].notna().mean())

    def unlabelled(self) -> dict[str, int]:
        """How many faces have no label, by reason."""
        return {str(reason): int(n) for reason, n in self.table["reason"].value_counts().sort_index().items()}

    def sure(self, min_confidence: float) -> Labels:
        """The same with the less confident labels taken away, reason ``low_confidence``.

        Raises:
            ConfigError: ``min_confidence`` out of range.
        """
        checked_number("min_confidence", min_confidence, float, low=0, high=1)
        # not >= : a label without a confidence is unsure too
        unsure = self.table["label"].notna() & ~(self.table["confidence"] >= min_confidence)
        table = self.table.assign(
            label=self.table["label"].where(~unsure),
            confidence=self.table["confidence"].where(~unsure),
            reason=self.table["reason"].where(~unsure, "low_confidence"),
        )
        return Labels(self.source, table)

    def apply(self, dataset: FaceDataset, column: str, *, min_confidence: float = 0.0) -> FaceDataset:
        """The dataset with these labels as a column; a less confident label is missing, not guessed.

        Args:
            dataset: with the faces that were labelled.
            column: name of the new attribute.
            min_confidence: labels below it are left out, 0..1.

        Raises:
            ConfigError: ``min_confidence`` out of range.
        """
        kept = self.sure(min_confidence).table["label"]
        source = self.source + (f"; only labels of confidence >= {min_confidence:g}" if min_confidence else "")
        return dataset.with_column(column, kept.reindex(dataset.table.index), source)


class Labeller(Protocol):
    """Anything that labels the faces of a dataset."""

    def label(self, dataset: FaceDataset) -> Labels:
        """Label every face; a face that cannot be labelled has a reason, and stops nothing."""
        ...


def batches(
    dataset: FaceDataset, size: int, batch_size: int
) -> Iterator[tuple[list[str], torch.Tensor, dict[str, str]]]:
    """The dataset in batches: ids, their pictures (b, 3, size, size), and ids that cannot be read with the reason."""
    ids = dataset.ids
    for start in range(0, len(ids), batch_size):
        chunk = ids[start : start + batch_size]
        broken: dict[str, str] = {}
        try:
            x = dataset.tensor(chunk, size)
        except ImageError:
            # one of them is damaged: read them one by one and leave that one out
            good = []
            for item in chunk:
                try:
                    good.append((item, dataset.tensor([item], size)))
                except ImageError:
                    broken[item] = "unreadable_image"
            chunk = [item for item, _ in good]
            x = torch.cat([picture for _, picture in good]) if good else torch.empty(0, 3, size, size)
        yield chunk, x, broken


def table_of(rows: dict[str, dict[str, object]], dataset: FaceDataset) -> pd.DataFrame:
    """Rows by id => a table in the dataset's order with at least the columns of :class:`Labels`."""
    table = pd.DataFrame.from_dict(rows, orient="index").reindex(dataset.table.index)
    for column in ("label", "confidence", "reason"):
        if column not in table.columns:
            table[column] = None
    table["confidence"] = pd.to_numeric(table["confidence"]).astype(float)
    table["reason"] = table["reason"].astype(object).where(table["reason"].notna(), None)
    labels = table["label"]
    if labels.notna().any() and labels.dropna().map(lambda value: isinstance(value, int)).all():
        table["label"] = labels.astype("Int64") if labels.isna().any() else labels.astype("int64")
    return table
