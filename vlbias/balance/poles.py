"""Where the values of a label column stand on a dipole: the one table, and columns the user describes.

A dipole runs from -1 (its negative pole) to +1 (its positive pole). ``age_group`` has *young* at -1 and *old* at +1; a
column of k ordered groups has its values in between. An edit from one value to another walks half the distance, in
units of calibrated strength (strength 1.0 carries a median face of one pole to the other).
"""

from __future__ import annotations

import difflib
import math
import numbers
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from vlbias.attributes import followers, of_column
from vlbias.errors import PlanError
from vlbias.labels import label_text, label_texts
from vlbias.paths import Dipole
from vlbias.types import Backend

__all__ = [
    "Poles",
    "check_by_words",
    "column_labels",
    "deciding_columns",
    "given_poles",
    "place_columns",
    "resolve_poles",
    "spelled",
    "stale_columns",
    "turned_round",
]

#: A numeric column with more values than this is a measurement, not a grouping.
MAX_GROUPS = 12
#: Faces, and of words faces for each word, below which a column may tell the groups apart by chance.
MIN_DECIDED, MIN_REPEATED = 30, 10


@dataclass(frozen=True)
class Poles:
    """How the values of one column lie on one dipole.

    Attributes:
        column: the label column.
        name: the dipole (and, for a protected column, the path).
        positions: value as text -> place in -1..1; at least two places, no two values at one place.
    """

    column: str
    name: str
    positions: Mapping[str, float]

    def __post_init__(self) -> None:
        places = sorted(self.positions.values())
        if len(places) < 2:
            raise PlanError(
                f"`poles` of '{self.column}' must place at least two values on '{self.name}'; "
                f"got {sorted(self.positions)}."
            )
        if not all(math.isfinite(place) and -1 <= place <= 1 for place in places):
            raise PlanError(f"`poles` of '{self.column}' must lie in -1..1; got {dict(self.positions)}.")
        for value, place in self.positions.items():
            twins = [other for other, at in self.positions.items() if other != value and abs(at - place) < 1e-6]
            if twins:
                raise PlanError(
                    f"'{value}' and '{twins[0]}' of '{self.column}' stand at the same place of '{self.name}', so no "
                    "edit turns one into the other. Merge them into one value, or leave one out of `poles`."
                )

    @property
    def ordered(self) -> list[str]:
        """The values from the negative pole to the positive one."""
        return sorted(self.positions, key=lambda value: self.positions[value])

    def strength(self, source: str, wanted: str) -> float:
        """Signed calibrated strength that carries a median face from one value to another."""
        return (self.positions[wanted] - self.positions[source]) / 2


def column_labels(table: pd.DataFrame, column: str, *, role: str) -> pd.Series:
    """One column as text labels (``None`` where missing), after checking that it is a grouping.

    Args:
        table: label table.
        column: its column.
        role: "target" or "protected", for the message.

    Raises:
        PlanError: no such column, no label in it, or a measurement with too many values.
    """
    if column not in table.columns:
        raise _unknown_column(column, table, role)
    labels = label_texts(table[column])
    values = sorted({label for label in labels if label is not None})
    if not values:
        raise PlanError(f"`{role}` '{column}' has no label in this dataset. Choose a labelled attribute.")
    if len(values) > MAX_GROUPS and pd.api.types.is_numeric_dtype(table[column]):
        raise PlanError(
            f"`{role}` '{column}' is a measurement with {len(values)} values, not a grouping. Use a column of groups "
            f"(such as {column}_group), or add one with pandas.cut."
        )
    return labels


def _unknown_column(column: str, table: pd.DataFrame, role: str) -> PlanError:
    names = [str(name) for name in table.columns if name not in ("file_name", "split")]
    if not names:
        return PlanError(
            f"`{role}` is '{column}', but the dataset has no labels. They go into a metadata.csv beside the pictures, "
            "with a column file_name and one for each label."
        )
    close = difflib.get_close_matches(str(column), names, n=1)
    hint = f" Did you mean '{close[0]}'?" if close else ""
    return PlanError(f"Unknown attribute '{column}' for `{role}`.{hint} Available: {', '.join(sorted(names))}.")


def resolve_poles(
    column: str,
    values: Iterable[str],
    dipoles: Mapping[str, Dipole] | Iterable[str],
    given: tuple[str, Mapping[object, float] | Sequence[object]] | None = None,
) -> Poles | None:
    """Find how a column's values lie on a dipole of the editor.

    Args:
        column: label column.
        values: its values that occur, as text.
        dipoles: the dipoles the editor knows; a mapping to :class:`vlbias.Dipole` also tells their orientation.
        given: (dipole name, {value: place} or values in order from the negative pole), which overrules the table.

    Returns:
        The poles; ``None`` where neither the table nor the editor knows the column.

    Raises:
        PlanError: ``given`` names a dipole that is not there, or places fewer than two values.
    """
    names = list(dipoles)
    if given is not None:
        return _described(column, names, given)
    values = sorted(set(values))
    attribute = of_column(column)
    # a 0/1 column of the dipole's own name, such as one the user has just learned, needs no entry
    aliases = (column,) if attribute is None else attribute.dipole_names
    positions = {"0": -1.0, "1": 1.0} if attribute is None else attribute.places(column)
    name = next((alias for alias in aliases if alias in names), None)
    if name is None or not set(values) <= set(positions):
        return None
    # a dipole of a known attribute has the registry's positive pole, unless its prompts are the registry's, turned
    turned = attribute is not None and isinstance(dipoles, Mapping) and attribute.is_turned(dipoles[name].positive)
    sign = -1 if turned else 1
    return Poles(column, name, {value: sign * place for value, place in positions.items()})


def given_poles(
    poles: Mapping[object, object] | Sequence[object] | None,
    *,
    path: str | None = None,
    target: str,
    protected: Sequence[str],
    dipoles: Mapping[str, Dipole] | Iterable[str],
) -> dict[str, Poles]:
    """What the user says of own columns, checked against the editor before any dataset is seen.

    Args:
        poles: {column: (path, {value: place} or values in order from the negative pole)}; ``None`` for none.
        path: with a single protected column: its path, so that ``poles`` has its values alone.
        target, protected: the columns of the job; no other may be named.
        dipoles: the dipoles the editor knows.

    Raises:
        PlanError: says which column is described badly, and how to write it.
    """
    if path is not None:
        if len(protected) != 1 or poles is None:
            raise PlanError("`path` needs one protected column and its `poles`, such as {'young': -1, 'old': 1}.")
        poles = {protected[0]: (path, poles)}
    if poles is not None and not isinstance(poles, Mapping):
        raise PlanError(f"`poles` must be a mapping such as {{'older': {_FORM}}}; got {poles!r}.")
    found = {}
    for column, given in (poles or {}).items():
        if column not in (target, *protected):
            others = ", ".join(protected)
            raise PlanError(f"`poles` name '{column}', neither `target` ({target}) nor `protected` ({others}).")
        found[column] = _described(column, list(dipoles), given)
    return found


def place_columns(
    table: pd.DataFrame | None, *, target: str, protected: Sequence[str], given: Mapping[str, Poles], backend: Backend
) -> tuple[Poles | None, list[Poles]]:
    """Where the values of a job's columns stand.

    Args:
        table: label table; ``None`` where faces are drawn.
        target, protected: the columns.
        given: what the user says of them, see :func:`given_poles`.
        backend: the editor, which must have a path for each protected column.

    Returns:
        Poles of the target, ``None`` where no dipole reads it, and of each protected column.

    Raises:
        PlanError: a column that is not there, is no grouping, or has no path.
    """

    def placed(column: str, role: str) -> tuple[Poles | None, list[str]]:
        labels: Iterable[str | None] = () if table is None else column_labels(table, column, role=role)
        values = sorted({label for label in labels if label is not None})
        return given.get(column) or resolve_poles(column, values, backend.dipoles), values

    found = []
    for column in protected:
        pole, values = placed(column, "protected")
        if pole is None:
            paths = {name: backend.dipoles[name] for name in backend.attributes}
            raise _unplaced(column, values, editor=backend.name, paths=paths)
        if pole.name not in backend.attributes:
            raise PlanError(
                f"Editor '{backend.name}' can read '{pole.name}' but has no path for it, so it cannot edit '{column}'. "
                f"Paths: {', '.join(backend.attributes) or 'none'}. Learn it with Editor.learn, or vlbias learn "
                f"{pole.name}."
            )
        found.append(pole)
    return placed(target, "target")[0], found


_FORM = "('age', ['no', 'yes'])"


def _described(column: str, names: Sequence[str], given: Any) -> Poles:
    is_pair = isinstance(given, Sequence) and not isinstance(given, str) and len(given) == 2
    if not is_pair or not isinstance(given[0], str) or not _is_placing(given[1]):
        raise PlanError(
            f"`poles` of '{column}' must be a path and the values in order from its negative pole, such as {_FORM}, "
            f"or with their places in -1..1, ('age', {{'no': -1, 'yes': 1}}); got {given!r}."
        )
    path, places = given
    if path not in names:
        raise PlanError(
            f"`poles` of '{column}' name the path '{path}', which the editor does not have. "
            f"Available: {', '.join(sorted(names)) or 'none'}. Learn it with Editor.learn, or vlbias learn."
        )
    values = [str(label_text(value)) for value in places]
    twice = sorted({value for value in values if values.count(value) > 1})
    if twice:
        raise PlanError(f"`poles` of '{column}' name the value '{twice[0]}' twice. Name each value once.")
    if isinstance(places, Mapping):
        return Poles(column, path, {value: float(place) for value, place in zip(values, places.values(), strict=True)})
    return Poles(column, path, _evenly(values))


def _evenly(values: Sequence[str]) -> dict[str, float]:
    """Values at equal distances from -1 to +1."""
    step = 2 / max(len(values) - 1, 1)
    return {value: -1 + index * step for index, value in enumerate(values)}


def _is_placing(places: object) -> bool:
    if isinstance(places, Mapping):
        return all(isinstance(place, numbers.Real) for place in places.values())
    return isinstance(places, Sequence) and not isinstance(places, str)


def spelled(pole: Poles | str, values: Sequence[str], path: str = "PATH") -> str:
    """How to say where values stand, in Python and on the command line.

    Example:
        >>> spelled("older", ["no", "yes"], "age")
        "poles={'older': ('age', ['no', 'yes'])}, or --poles older:age=no,yes"
    """
    column, path = (pole.column, pole.name) if isinstance(pole, Poles) else (pole, path)
    quoted = {value: f'"{value}"' if "," in value else value for value in values}
    if any(":" in value for value in values):  # a colon is read as the start of a place
        words = ",".join(f"{quoted[value]}:{place:.3g}" for value, place in _evenly(values).items())
    else:
        words = ",".join(quoted.values())
    return f"poles={{'{column}': ('{path}', {list(values)})}}, or --poles {shlex.quote(f'{column}:{path}={words}')}"


def turned_round(pole: Poles, why: str) -> PlanError:
    """The error for values that stand at the other ends of a dipole: how to turn them."""
    return PlanError(
        f"The values of '{pole.column}' stand the wrong way round on '{pole.name}': {why}. Turn them: "
        f"{spelled(pole, pole.ordered[::-1])}."
    )


def check_by_words(pole: Poles, dipole: Dipole) -> None:
    """Refuse values of a known column at the wrong ends of a dipole: where no labelled face shows it, words do.

    Raises:
        PlanError: says how to turn them.
    """
    attribute = of_column(pole.column)
    if attribute is None:
        return
    low, high = attribute.columns[pole.column]
    if not {low, high} <= set(pole.positions):
        return
    way = 1 if pole.positions[high] > pole.positions[low] else -1
    if way * attribute.sign_of(dipole.positive, dipole.negative) < 0:
        end = dipole.positive[0] if way > 0 else dipole.negative[0]
        raise turned_round(pole, f"'{high}' stands at '{end}'")


def _unplaced(column: str, values: Sequence[str], *, editor: str, paths: Mapping[str, Dipole]) -> PlanError:
    """The error for a protected column that the library knows nothing of: what to type, and what paths there are.

    Args:
        column: the label column.
        values: its values, as text.
        editor: name of the editor.
        paths: path -> its dipole.
    """
    if not paths:
        return PlanError(f"Editor '{editor}' has no path that could carry '{column}'. Learn one with vlbias learn.")
    if len(values) > MAX_GROUPS:
        return PlanError(
            f"`protected` '{column}' has {len(values)} values, too many for groups on a path. Use a column of fewer "
            "groups, or add one with pandas."
        )
    attribute = of_column(column)
    known = () if attribute is None else attribute.dipole_names
    path = next((name for name in known if name in paths), "PATH")
    learn = f" Or learn it with vlbias learn {attribute.name}." if attribute is not None and path == "PATH" else ""
    named = ", ".join(f"{name} ('{dipole.negative[0]}' to '{dipole.positive[0]}')" for name, dipole in paths.items())
    return PlanError(
        f"No path of editor '{editor}' is known to carry '{column}' ({', '.join(values)}). Name one, and the values in "
        f"order from its negative pole to its positive one: {spelled(column, values, path)}.{learn} Paths: {named}."
    )


def stale_columns(poles: Iterable[Poles], labels: pd.DataFrame, target: str) -> list[str]:
    """Columns that an edit along these dipoles makes untrue, beside the edited columns themselves.

    A photograph of a man of 30 that now shows an old man has no known age in years; a changed skin says nothing about
    race. Such cells are left blank in edited rows rather than copied from the donor.

    Args:
        poles: of the protected columns.
        labels: the label columns, one row per face.
        target: the column that edits keep.
    """
    poles = list(poles)
    known = followers(pole.name for pole in poles) - {target, *(pole.column for pole in poles)}
    return sorted({*known.intersection(labels.columns), *deciding_columns(poles, labels, target)})


def deciding_columns(poles: Iterable[Poles], labels: pd.DataFrame, target: str) -> dict[str, str]:
    """Columns of no known name that say by themselves which group a face is in, and the protected column of each.

    Years in a column "years" say who is old as well as those in "age" do. Arguments as for :func:`stale_columns`.
    """
    poles = list(poles)
    passed = followers(pole.name for pole in poles) | {target, *(pole.column for pole in poles)}
    others = [column for column in labels.columns if column not in passed]
    found: dict[str, str] = {}
    for pole in poles:
        groups = label_texts(labels[pole.column])
        groups = groups.where(groups.isin(list(pole.positions)))
        found |= {name: pole.column for name in others if name not in found and _decides(labels[name], groups)}
    return found


def _decides(values: pd.Series, groups: pd.Series) -> bool:
    """Whether each value, or each range of numbers, belongs to one group, on too many faces for chance."""
    both = values.notna() & groups.notna()
    values, groups = values[both], groups[both]
    if len(values) < MIN_DECIDED or groups.nunique() < 2:
        return False
    num_values = values.nunique()
    if num_values > MAX_GROUPS and pd.api.types.is_numeric_dtype(values.dtype):
        ordered = groups.iloc[values.to_numpy(float).argsort(kind="stable")]
        runs = int((ordered != ordered.shift()).sum())
        return runs == groups.nunique() and int(groups.groupby(values).nunique().max()) == 1
    return num_values * MIN_REPEATED <= len(values) and int(groups.groupby(values).nunique().max()) == 1
