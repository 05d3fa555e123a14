"""How well edits can be told from real faces of the same cell, group by group: the leak, of any two datasets."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from vlbias.arguments import checked_call
from vlbias.audit.composition import labels_of
from vlbias.data import FaceDataset
from vlbias.data.origins import are_copies
from vlbias.errors import DatasetError
from vlbias.labels import group_texts, in_order
from vlbias.leak import Leak, LeakSettings, measure_leak
from vlbias.settings import with_changes

__all__ = ["artefacts"]

#: The entry of all groups together.
ALL = "all"


@checked_call
def artefacts(
    real: FaceDataset,
    edited: FaceDataset,
    *,
    protected: str | Sequence[str],
    target: str | None = None,
    settings: LeakSettings | None = None,
    **changes: Any,
) -> dict[str, Leak]:
    """Measure how well edits can be told from real faces of the same cell, as ``vlbias balance`` does of its own.

    Whoever tells them is trained on some faces and asked of others (cross-fitted, all pictures of a donor together).
    Where the donors of the edits are among ``real``, they are compared with the same real faces as well.

    Args:
        real: unedited faces.
        edited: edits; with ``source_id`` it is known whose.
        protected: columns whose values make the groups.
        target: column of the classes; faces are compared within class and group. ``None`` for within groups.
        settings: of the measurement; ``None`` for the defaults.
        changes: single settings by name, such as ``max_pictures=200`` or ``probe="network"``.

    Returns:
        A measurement for each group that holds edits, and one of "all". Its ``readings`` are empty where a group holds
        too few pictures; :func:`vlbias.leak.why_no_figure` says so.

    Raises:
        DatasetError: no edit, or no real face, has all labels.
        UnknownNameError: no such column or setting.
    """
    how = with_changes(LeakSettings, settings, changes)
    columns = [protected] if isinstance(protected, str) else list(protected)
    with tempfile.TemporaryDirectory() as drawn:
        parts = [_rows(one, kind, target, columns, Path(drawn)) for kind, one in (("real", real), ("edited", edited))]
        table = pd.concat(parts, ignore_index=True)
        names = group_texts(table, columns)
        groups = in_order(set(names[table["origin"] == "edited"]))

        def measured(rows: pd.DataFrame) -> Leak:
            return measure_leak(rows, drawn, target=_TARGET, protected=columns, splits=("train",), settings=how)

        return {group: measured(table[names == group]) for group in groups} | {ALL: measured(table)}


_TARGET = "target of the probe"


def _rows(dataset: FaceDataset, origin: str, target: str | None, columns: list[str], drawn: Path) -> pd.DataFrame:
    """Rows as ``metadata.csv`` has them; pictures that are no files of their own are written below ``drawn``."""
    table = dataset.table
    rows = pd.DataFrame({column: dataset.column(column) for column in columns}, index=table.index)
    rows[_TARGET] = "any" if target is None else labels_of(dataset, target, columns)[0]
    rows["source_id"] = table["source_id"] if origin == "edited" and "source_id" in table else table.index
    if origin == "edited" and "origin" in table:
        rows = rows[table["origin"] != "real"]
    rows = rows[~are_copies(table)[rows.index]].dropna()
    if rows.empty:
        raise DatasetError(f"'{dataset.name}' has no {origin} face with all labels.")
    places = []
    for row, item in enumerate(rows.index):
        path = dataset.path(item)
        if path is None or dataset.placement(item) is not None:
            path = drawn / f"{origin}-{row}.png"
            dataset.image(item).save(path)
        places.append(str(Path(path).absolute()))
    return rows.assign(origin=origin, split="train", file_name=places)
