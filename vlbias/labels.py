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

from vlbias.arguments import checked_call
from vlbias.errors import ConfigError, LabelError, unknown

__all__ = ["group_name", "group_texts", "in_order", "label_text", "label_texts", "label_value", "typed_labels"]


def label_value(value: object) -> bool | int | float | str | None:
    """A label as a plain value of its own type; missing => ``None``.

    Raises:
        LabelError: a list, a mapping or an array: a label is one value; or text with half a character.

    Example:
        >>> label_value(np.float32("nan")), label_value("light "), label_value(np.bool_(True)), label_value("None")
        (None, 'light', True, 'None')
    """
    if isinstance(value, np.datetime64 | np.timedelta64):
        value = pd.Timestamp(value) if isinstance(value, np.datetime64) else pd.Timedelta(value)
    elif isinstance(value, np.generic):
        # a float32 of 0.1 is 0.1, not the double next to it
        value = float(str(value)) if isinstance(value, np.floating) else value.item()
    if value is None or value is pd.NA or value is pd.NaT:
        return None
    if isinstance(value, bytes):
        value = value.decode(errors="backslashreplace")  # text as HDF5 and TFRecord files hold it
    if isinstance(value, str):
        return unicodedata.normalize("NFC", _whole_text(value)).strip() or None
    if isinstance(value, bool | int):
        return value
    if isinstance(value, float | Decimal):
        return None if math.isnan(value) else float(value)
    if isinstance(value, list | tuple | set | frozenset | Mapping | np.ndarray):
        raise LabelError(f"a label is one value, text or a number; got {type(value).__name__} {value!r:.60}.")
    return str(value)


def _whole_text(text: str) -> str:
    """Text that every file can have; a name in another encoding reads as halves of characters."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise LabelError(f"a label is text in UTF-8; {text!r:.60} has half a character.") from error
    return text


def label_text(value: object) -> str | None:
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


def label_texts(values: pd.Series | Sequence[object]) -> pd.Series:
    """A column of labels as text, ``None`` where missing; dtype object, the index of ``values``.

    Raises:
        LabelError: a value is a list, a mapping or an array.
    """
    series = values if isinstance(values, pd.Series) else pd.Series(list(values), dtype=object)
    codes, uniques = _different(series)
    texts = np.array([*map(label_text, uniques), None], dtype=object)  # code -1, missing, is the last
    return pd.Series(texts[codes], index=series.index, dtype=object)


def typed_labels(values: pd.Series) -> pd.Series:
    """A column of labels in one type, the same whatever file it came from.

    Returns:
        dtype ``bool``, ``int64``, ``float64`` or ``str``; ``boolean`` or ``Int64`` where some are missing. Labels of
        several types (text beside numbers) are text.

    Raises:
        LabelError: a value is a list, a mapping or an array.

    Example:
        >>> typed_labels(pd.Series([1, None, 0], dtype=object)).dtype, typed_labels(pd.Series(["a ", 1])).tolist()
        (Int64Dtype(), ['a', '1'])
    """
    if pd.api.types.is_bool_dtype(values.dtype) or pd.api.types.is_integer_dtype(values.dtype):
        return _narrow(values, "boolean" if pd.api.types.is_bool_dtype(values.dtype) else "Int64")
    if pd.api.types.is_float_dtype(values.dtype) and values.dtype != np.float32:
        return values.astype("float64")
    codes, uniques = _different(values)
    labels = [label_value(value) for value in uniques]
    kinds = {type(label) for label in labels if label is not None}
    if kinds == {str} and isinstance(values.dtype, pd.StringDtype) and labels == list(uniques):
        return values.astype("str")
    dtype = {frozenset({bool}): "boolean", frozenset({int}): "Int64"}.get(frozenset(kinds), "str")
    if float in kinds and kinds <= {int, float}:
        dtype = "float64"
    if dtype == "str":
        labels = [label_text(label) for label in labels]
    try:
        typed = pd.Series(np.array([*labels, None], dtype=object)[codes], index=values.index, dtype=dtype)
    except OverflowError:  # whole numbers beyond 64 bits
        return typed_labels(label_texts(values))
    return _narrow(typed, dtype)


def _narrow(values: pd.Series, dtype: str) -> pd.Series:
    """NumPy's own dtype where no value is missing."""
    if dtype == "boolean":
        return values.astype("boolean") if values.isna().any() else values.astype("bool")
    if dtype == "Int64":
        return values.astype("Int64") if values.isna().any() else values.astype("int64")
    return values


def _different(series: pd.Series) -> tuple[np.ndarray, Sequence[Any]]:
    """Codes (n,) and the different values of a column; -1 stands for missing ones."""
    try:
        codes, uniques = pd.factorize(series, use_na_sentinel=True)
    except TypeError:  # unhashable: label_value says what is wrong
        return np.arange(len(series)), series.tolist()
    # an index of float32 gives numbers of 64 bits: 0.10000000149 for 0.1
    return codes, list(np.asarray(uniques) if series.dtype == np.float32 else uniques)


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


@checked_call
def group_texts(table: pd.DataFrame, columns: Sequence[str]) -> pd.Series:
    """The group of each row by the values of one or several columns; ``None`` where one of them is missing.

    Raises:
        ConfigError: no column, or one twice.
        UnknownNameError: a column that the table lacks.
    """
    if not columns:
        raise ConfigError("name at least one column that makes groups.")
    if len(set(columns)) < len(columns):
        raise ConfigError(f"a column is named twice that makes groups: {', '.join(columns)}. Name each once.")
    for column in columns:
        if column not in table:
            raise unknown("column", column, table.columns)
    parts = [label_texts(table[column]) for column in columns]
    if len(parts) == 1:
        return parts[0]
    names: dict[tuple[str | None, ...], str | None] = {}
    rows = list(zip(*parts, strict=True))
    for row in set(rows):
        names[row] = None if None in row else group_name([str(part) for part in row])
    return pd.Series([names[row] for row in rows], index=table.index, dtype=object)


@checked_call
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
