"""Rows of tables that may have a million of them: kept as columns, and seen as mappings one after another.

A mapping for each row would take ten times the memory of the table.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any, overload

import pandas as pd

__all__ = ["GatheredRows", "TableRows", "gathered", "sha256_csv"]

#: Rows that are mappings at a time.
_TOGETHER = 4096
#: Longer texts, and more different ones, are no labels: each is kept as it comes.
_LABEL_LENGTH, _MAX_LABELS = 100, 10_000


class TableRows(Sequence[dict[str, Any]]):
    """Rows ``start`` to ``stop`` of a table; only these are sent where they are sent to another process."""

    def __init__(self, table: pd.DataFrame, start: int = 0, stop: int | None = None):
        self._table, self._start = table, start
        self._stop = len(table) if stop is None else min(stop, len(table))

    def __len__(self) -> int:
        return max(self._stop - self._start, 0)

    @overload
    def __getitem__(self, place: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, place: slice) -> list[dict[str, Any]]: ...
    def __getitem__(self, place: int | slice) -> dict[str, Any] | list[dict[str, Any]]:
        wanted = range(self._start, self._stop)[place]
        if isinstance(wanted, int):
            return _mappings(self._table.iloc[wanted : wanted + 1])[0]
        return _mappings(self._table.iloc[list(wanted)])

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for start in range(self._start, self._stop, _TOGETHER):
            yield from _mappings(self._table.iloc[start : min(start + _TOGETHER, self._stop)])

    def __reduce__(self) -> tuple[Any, ...]:
        return TableRows, (self._table.iloc[self._start : self._stop].copy(),)


def _mappings(part: pd.DataFrame) -> list[dict[str, Any]]:
    names = [str(name) for name in part.columns]
    return [dict(zip(names, row.values(), strict=True)) for row in part.to_dict("records")]


class GatheredRows:
    """Rows that are given one by one, as columns; texts that stand in many rows are kept once.

    Args:
        columns: of the table; what a row has beyond these is left out, and what it lacks is missing.
        dtype: of all of them; ``None`` for what each column holds.
    """

    def __init__(self, columns: Sequence[str], dtype: type | None = None):
        self._columns, self._dtype = list(columns), dtype
        self._rows: list[list[Any]] = []
        self._parts: list[pd.DataFrame] = []
        self._texts: dict[Hashable, Any] = {}

    def add(self, row: Mapping[str, Any]) -> None:
        """One row more."""
        self._rows.append([self._kept(row.get(name)) for name in self._columns])
        if len(self._rows) == _TOGETHER:
            self._pack()

    def table(self) -> pd.DataFrame:
        """All rows so far."""
        if self._rows or not self._parts:
            self._pack()
        return pd.concat(self._parts, ignore_index=True) if len(self._parts) > 1 else self._parts[0]

    def _pack(self) -> None:
        self._parts.append(pd.DataFrame(self._rows, columns=self._columns, dtype=self._dtype))
        self._rows = []

    def _kept(self, value: Any) -> Any:
        if type(value) is not str or len(value) > _LABEL_LENGTH:
            return value
        if len(self._texts) < _MAX_LABELS:
            return self._texts.setdefault(value, value)
        return self._texts.get(value, value)


def gathered(rows: Iterable[Mapping[str, Any]], columns: Sequence[str], dtype: type | None = None) -> pd.DataFrame:
    """A table of rows, see :class:`GatheredRows`."""
    found = GatheredRows(columns, dtype)
    for row in rows:
        found.add(row)
    return found.table()


def sha256_csv(table: pd.DataFrame, *, index: bool = False) -> Any:
    """The SHA-256 of ``table.to_csv(index=index)``, of which no more than a part is text at a time."""
    digest = hashlib.sha256()
    for start in range(0, max(len(table), 1), _TOGETHER):
        text = table.iloc[start : start + _TOGETHER].to_csv(index=index, header=start == 0)
        digest.update(text.encode())
    return digest
