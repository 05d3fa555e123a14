"""How the words of an option are read: lists, places on a path, levels, checks.

A value that cannot be read is wrong usage (exit status 2); the message names it and shows the right form. What a value
means is checked by the library.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NoReturn

import typer

from vlbias.errors import unknown

if TYPE_CHECKING:
    from vlbias.balance import Checks

__all__ = [
    "columns_of",
    "files_of",
    "names_of",
    "number_of",
    "numbers_of",
    "pairs_of",
    "places_of",
    "poles_of",
    "shard_of",
    "sizes_of",
    "to_of",
]

#: Values in order from the negative pole to the positive one, or each with its place in -1..1.
Places = list[str] | dict[str, float]

POLES_FORM = "COLUMN:PATH=VALUE,VALUE from the negative pole to the positive one, such as older:age=no,yes"


def _refuse(option: str, expected: str, text: str) -> NoReturn:
    raise typer.BadParameter(f"expected {expected}; got '{text}'", param_hint=option)


def names_of(text: str, option: str) -> list[str]:
    """Names separated by commas; one that holds a comma stands in double quotes.

    Example:
        >>> names_of('light, "dark, very"', "--protected")
        ['light', 'dark, very']
    """
    try:
        rows = list(csv.reader([text], skipinitialspace=True, strict=False))
    except csv.Error:
        rows = []
    names = [name.strip() for name in rows[0]] if len(rows) == 1 else []
    if not names or not all(names):
        _refuse(option, "names separated by commas", text)
    return names


def number_of(text: str, option: str, form: str = "a number", within: str | None = None) -> float:
    """One finite number in plain digits: no NaN, no ``1_000``, no digits of other scripts.

    Args:
        text: the words.
        option: for the message.
        form: what is expected.
        within: the longer text that they stand in; shown in their place.
    """
    text = text.strip()
    try:
        number = float(text) if text.isascii() and "_" not in text else math.nan
    except ValueError:
        number = math.nan
    return number if math.isfinite(number) else _refuse(option, form, within or text)


def numbers_of(text: str, option: str) -> list[float]:
    """Numbers, separated by commas."""
    return [number_of(part, option, "numbers separated by commas", text) for part in text.split(",")]


def columns_of(texts: Iterable[str], option: str = "--protected") -> str | list[str]:
    """Columns of a repeatable option, each time one or several: one as a text, several as a list."""
    names = [name for text in texts for name in names_of(text, option)]
    return names[0] if len(names) == 1 else names


def pairs_of(text: str, option: str, form: str, *, joint: str = "=") -> dict[str, float]:
    """NAME=NUMBER separated by commas; the last ``joint`` of each counts, so names may hold one.

    Args:
        text: the words.
        option: for the message.
        form: what is expected, with an example.
        joint: stands between name and number.
    """
    pairs: dict[str, float] = {}
    for item in names_of(text, option):
        name, _, value = item.rpartition(joint)
        number = number_of(value, option, form, item)
        name = name.strip()
        if not name:
            _refuse(option, form, item)
        if name in pairs:
            raise typer.BadParameter(f"'{name}' stands twice in '{text}'", param_hint=option)
        pairs[name] = number
    return pairs


def places_of(text: str, option: str = "--poles") -> Places:
    """Where values stand on a path: ``no,yes`` in order from the negative pole, or ``m:-1,f:1``.

    Example:
        >>> places_of("child,adult,senior"), places_of("m:-1,f:1")
        (['child', 'adult', 'senior'], {'m': -1.0, 'f': 1.0})
    """
    values = names_of(text, option)
    if not any(":" in value for value in values):
        return list(values)
    return pairs_of(text, option, "VALUE:PLACE with a place in -1..1 for each value, such as m:-1,f:1", joint=":")


def poles_of(texts: Iterable[str], path: str | None = None) -> dict[str, tuple[str, Places]] | Places | None:
    """``--poles`` as :class:`vlbias.Balancer` takes them.

    Args:
        texts: each ``COLUMN:PATH=VALUES``, or, where ``path`` is given, a single ``VALUES``.
        path: of the single protected column.
    """
    texts = list(texts)
    if path is not None:
        if len(texts) != 1:
            raise typer.BadParameter(
                "give one --poles with it, the values in order from the path's negative pole: "
                f"--path {path} --poles no,yes",
                param_hint="--path",
            )
        if "=" in texts[0]:
            _refuse("--poles", "values alone beside --path, such as no,yes", texts[0])
        return places_of(texts[0])
    found: dict[str, tuple[str, Places]] = {}
    for text in texts:
        head, _, values = text.partition("=")
        column, _, name = (part.strip() for part in head.rpartition(":"))
        if not (column and name and values):
            _refuse("--poles", POLES_FORM, text)
        if column in found:
            raise typer.BadParameter(f"column '{column}' is given twice", param_hint="--poles")
        found[column] = (name, places_of(values))
    return found or None


def files_of(texts: Iterable[str], option: str, form: str = "COLUMN=FILE such as gender=gender.onnx") -> dict[str, str]:
    """NAME=FILE of a repeatable option, each name once.

    Args:
        texts: the words.
        option: for the message.
        form: what is expected, with an example.

    Example:
        >>> files_of(["gender=models/gender.onnx"], "--scorer")
        {'gender': 'models/gender.onnx'}
    """
    found: dict[str, str] = {}
    for text in texts:
        column, _, file = (part.strip() for part in text.partition("="))
        if not (column and file):
            _refuse(option, form, text)
        if column in found:
            raise typer.BadParameter(f"'{column}' is given twice", param_hint=option)
        found[column] = file
    return found


def to_of(text: str) -> str | int | dict[str, float]:
    """``--to``: a level, a number of faces, or GROUP=SHARE separated by commas."""
    text = text.strip()
    if text in ("max", "mean", "all"):
        return text
    if text.isascii() and text.isdigit():
        return int(text)
    form = "max, mean, all, a number of faces, or GROUP=SHARE,... such as light=.5,dark=.5"
    return pairs_of(text, "--to", form) if "=" in text else _refuse("--to", form, text)


def checks_of(text: str | None) -> Checks:
    """``--checks NAME=VALUE,...`` as :class:`vlbias.balance.Checks`; ``None`` leaves the library's own."""
    from dataclasses import fields

    from vlbias.balance import Checks

    if text is None:
        return Checks()
    defaults = {field.name: field.default for field in fields(Checks)}
    given: dict[str, Any] = pairs_of(text, "--checks", "NAME=NUMBER,... such as goal=.8,sure=.9")
    for name, value in given.items():
        if name not in defaults:
            raise typer.BadParameter(str(unknown("check", name, defaults)), param_hint="--checks")
        if isinstance(defaults[name], int):
            if not value.is_integer():
                _refuse("--checks", f"a whole number for {name}", f"{value:g}")
            given[name] = int(value)
    return Checks(**given)


def shard_of(text: str | None) -> tuple[int, int] | None:
    """``--shard I/N``, counted from 1, as the library's (i, n), counted from 0."""
    if text is None:
        return None
    parts = text.split("/")
    if len(parts) != 2 or not all(part.isascii() and part.isdigit() for part in parts):
        _refuse("--shard", "I/N such as 1/4", text)
    index, total = map(int, parts)
    if not 1 <= index <= total:
        raise typer.BadParameter(f"I must lie in 1..N, got '{text}'", param_hint="--shard")
    return index - 1, total


def sizes_of(text: str) -> tuple[int, ...]:
    """``--leak-sizes PX,...``: sizes in pixels.

    Example:
        >>> sizes_of("128,224")
        (128, 224)
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() for part in parts):
        _refuse("--leak-sizes", "whole numbers of pixels separated by commas", text)
    return tuple(map(int, parts))
