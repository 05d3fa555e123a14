"""What a label is. One function decides it for every room, whatever type or file a value came from.

A label is one value: text, a number, yes or no. Its *text* is what cells, groups and plans are named by: ``1``, ``1.0``
and ``True`` all read "1", and "light " reads "light". An empty cell is missing, and so is text of spaces alone; a class
that somebody called "None" or "NA" is a class.
"""

from __future__ import annotations

import json
import math
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd

from vlbias.errors import LabelError

__all__ = ["group_name", "group_texts", "in_order", "label_text", "label_texts", "label_value"]


def label_value(value: Any) -> bool | int | float | str | None:
    """A label as a plain value of its own type; missing => ``None``.

    Raises:
        LabelError: a list, a mapping or an array: a label is one value.

    Example:
        >>> label_value(np.float32("nan")), label_value("light "), label_value(np.bool_(True)), label_value("None")
        (None, 'light', True, 'None')
    """
    if isinstance(value, np.generic):
        # a float32 of 0.1 is 0.1, not the double next to it
        value = float(str(value)) if isinstance(value, np.floating) else value.item()
    if value is None or value is pd.NA or value is pd.NaT:
        return None
    if isinstance(value, str):
        return unicodedata.normalize("NFC", value).strip() or None
    if isinstance(value, bool | int):
        return value
    if isinstance(value, float | Decimal):
        return None if math.isnan(value) else float(value)
    if isinstance(value, list | tuple | set | frozenset | Mapping | np.ndarray):
        raise LabelError(f"a label is one value, text or a number; got {type(value).__name__} {value!r:.60}.")
    return str(value)


def label_text(value: Any) -> str | None:
    """A label as text, the same whatever type it came in: 1, 1.0, True => "1"; missing => ``None``.

    Raises:
        LabelError: a list, a mapping or an array.

    Example:
        >>> [label_text(value) for value in (True, 1.0, "1", " old ", 2.5, "", None)]
        ['1', '1', '1', 'old', '2.5', None, None]
    """
    value = label_value(value)
    if isinstance(value, bool) or (isinstance(value, float) and value.is_integer()):
        value = int(value)
    return None if value is None else str(value)


def label_texts(values: pd.Series | Sequence[Any]) -> pd.Series:
    """A column of labels as text, ``None`` where missing; dtype object, the index of ``values``.

    Raises:
        LabelError: a value is a list, a mapping or an array.
    """
    series = values if isinstance(values, pd.Series) else pd.Series(list(values), dtype=object)
    try:
        codes, uniques = pd.factorize(series, use_na_sentinel=True)
    except TypeError:  # unhashable: label_value says what is wrong
        codes, uniques = np.arange(len(series)), series.array
    texts = np.array([*map(label_text, uniques), None], dtype=object)  # code -1, missing, is the last
    return pd.Series(texts[codes], index=series.index, dtype=object)


def group_name(parts: Sequence[str]) -> str:
    """One name for the values of several columns; no two lists of values share a name.

    Example:
        >>> group_name(["dark", "old"]), group_name(["a & b", "c"])
        ('dark & old', '"a & b" & c')
    """
    if len(parts) == 1:
        return parts[0]
    quoted = [json.dumps(part, ensure_ascii=False) if part[:1] == '"' or "&" in part else part for part in parts]
    return " & ".join(quoted)


def group_texts(table: pd.DataFrame, columns: Sequence[str]) -> pd.Series:
    """The group of each row by the values of one or several columns; ``None`` where one of them is missing."""
    parts = [label_texts(table[column]) for column in columns]
    if len(parts) == 1:
        return parts[0]
    names: dict[tuple[str | None, ...], str | None] = {}
    rows = list(zip(*parts, strict=True))
    for row in set(rows):
        names[row] = None if None in row else group_name([str(part) for part in row])
    return pd.Series([names[row] for row in rows], index=table.index, dtype=object)


def in_order(texts: Iterable[str]) -> list[str]:
    """Different labels in the order people count and spell: numbers by size, then words.

    Example:
        >>> in_order(["old", "10", "2", "old"])
        ['2', '10', 'old']
    """

    def key(text: str) -> tuple[bool, float, str]:
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        return (True, 0.0, text) if math.isnan(number) else (False, number, text)

    return sorted(set(texts), key=key)
