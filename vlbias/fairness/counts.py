"""How many items of group g and true class y were predicted p: every number of this room is a function of it."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from vlbias.errors import LabelError, ShapeError
from vlbias.labels import label_text, label_value

__all__ = ["Counts", "check_cells", "count", "tally"]


def tally(
    groups: np.ndarray,
    y_true: np.ndarray,
    y_pred: np.ndarray,
    *,
    num_groups: int,
    num_classes: int,
    weights: np.ndarray | None = None,
) -> np.ndarray:
    """Codes => counts (..., g, y, p).

    Args:
        groups, y_true: codes (n,); groups may be (s, n), of s arrangements.
        y_pred: codes (n,), or (s, n) of s classifiers.
        num_groups, num_classes: how many there are.
        weights: how often each item counts, (n,) or (b, n); ``None`` for once. With (b, n) there is one classifier.

    Returns:
        Counts (g, y, p); with s classifiers or arrangements (s, g, y, p), with b weights (b, g, y, p).

    Example:
        >>> tally(np.array([0, 1]), np.array([1, 1]), np.array([1, 0]), num_groups=2, num_classes=2)[:, 1].tolist()
        [[0.0, 1.0], [1.0, 0.0]]
    """
    num_cells = num_groups * num_classes * num_classes
    cells = (groups * num_classes + y_true) * num_classes + y_pred
    if weights is not None and weights.ndim == 2:
        members = np.zeros((len(groups), num_cells))
        members[np.arange(len(groups)), cells] = 1.0
        flat = weights @ members
    else:
        rows = np.atleast_2d(cells)
        flat = np.stack([np.bincount(row, weights, minlength=num_cells) for row in rows]).astype(float)
        flat = flat.reshape(*cells.shape[:-1], num_cells)
    return flat.reshape(*flat.shape[:-1], num_groups, num_classes, num_classes)


@dataclass(frozen=True)
class Counts:
    """Counts of one set of predictions.

    Attributes:
        n: whole numbers (g, y, p).
        classes: in the order of y and p. groups: in the order of g; a group of several columns is a tuple.
        items: codes (n,) of group, true and predicted class of each item that was counted.
        columns: names of the columns that make the groups, or none.
    """

    n: np.ndarray
    classes: list[Any]
    groups: list[Any]
    items: tuple[np.ndarray, np.ndarray, np.ndarray]
    columns: tuple[str, ...] = ()

    @property
    def group_index(self) -> pd.Index:
        """The groups as an index of tables: one level per column."""
        if self.columns:
            return pd.MultiIndex.from_tuples(self.groups, names=self.columns)
        return pd.Index(self.groups, name="group", dtype=object, tupleize_cols=False)

    def weighted(self, weights: object) -> np.ndarray:
        """The counts (g, y, p) with a weight for each item.

        Raises:
            ShapeError: not one finite weight >= 0 an item, or all of them 0.
        """
        try:
            each = np.asarray(weights, dtype=float)
        except (TypeError, ValueError):
            each = np.empty(0)  # no numbers: refused like any other wrong shape
        wanted = f"`weights` must be ({len(self.items[0])},), finite, >= 0 and not all 0"
        if each.shape != self.items[0].shape:
            raise ShapeError(f"{wanted}; got shape {each.shape}.")
        if (wrong := ~np.isfinite(each) | (each < 0)).any():
            raise ShapeError(f"{wanted}; got {each[wrong][0]:g} at position {int(wrong.argmax())}.")
        if not each.any():
            raise ShapeError(f"{wanted}; got 0 alone.")
        return tally(*self.items, num_groups=len(self.groups), num_classes=len(self.classes), weights=each)


def count(
    y_true: object,
    y_pred: object,
    groups: object,
    classes: Sequence[object] | None = None,
    group_names: Sequence[object] | None = None,
) -> Counts:
    """Labels of any kind => counts.

    Args:
        y_true, y_pred: labels (n,).
        groups: labels (n,), or a table of several columns, whose groups are the tuples of their values.
        classes, group_names: all of them in order; ``None`` for those that occur, in ``y_true`` and in ``groups``.

    Raises:
        ShapeError: lengths differ, or nothing given.
        LabelError: a missing label, one that is not among ``classes``, or two that read the same ("1" and 1).
    """
    true, pred, (group, columns) = _labels(y_true, "y_true"), _labels(y_pred, "y_pred"), _groups(groups)
    if not true:
        raise ShapeError("`y_true` is empty; expected at least one item per cell.")
    if not len(true) == len(pred) == len(group):
        raise ShapeError(
            f"`y_true`, `y_pred` and `groups` must have one length; got {len(true)}, {len(pred)} and {len(group)}."
        )
    class_names = _in_order(true, "y_true") if classes is None else _named(classes, "classes")
    names = _in_order(group, "groups") if group_names is None else _named(group_names, "group_names")
    _check_order(y_true=y_true, y_pred=y_pred, groups=groups)
    items = _codes(group, names, "groups"), _codes(true, class_names, "y_true"), _codes(pred, class_names, "y_pred")
    n = tally(*items, num_groups=len(names), num_classes=len(class_names))
    return Counts(n, class_names, names, items, columns)


def check_cells(counts: Counts, min_cell: int | None) -> None:
    """Raise for what no rate can rest on.

    Raises:
        LabelError: one group alone; without ``min_cell`` also an empty group or cell.
    """
    if len(counts.groups) < 2:
        raise LabelError(f"`groups` has one group, {counts.groups[0]!r}; a gap needs two.")
    if min_cell is not None:
        return
    for name, size in zip(counts.groups, counts.n.sum((1, 2)), strict=True):
        if size == 0:
            raise LabelError(f"group {name!r} has no item. Leave it out of `group_names`, or pass `min_cell=1`.")
    support = counts.n.sum(2)
    # A class that nobody has is no cell: it can only be predicted wrongly.
    for g, y in zip(*np.nonzero((support == 0) & (support.sum(0) > 0)), strict=True):
        raise LabelError(
            f"cell ({counts.classes[y]!r}, {counts.groups[g]!r}) has no item, so its rates are undefined. "
            "Add test items, or pass `min_cell=1` to leave such cells out and count them."
        )


# ---------------------------------------------------------------------------------------------------------------------
# Labels


def _check_order(**given: object) -> None:
    """Items are matched by position. The same index in another order would match them wrongly without a word."""
    indexes = {name: item.index for name, item in given.items() if isinstance(item, pd.Series | pd.DataFrame)}
    for (name, index), (other, its) in itertools.pairwise(indexes.items()):
        if not index.equals(its) and index.is_unique and len(index.intersection(its)) == len(index):
            raise LabelError(
                f"`{name}` and `{other}` have the same index in another order. Bring them into one order, "
                f"`{other}.reindex({name}.index)`, or give arrays, `{other}.to_numpy()`, if they belong as they stand."
            )


def _groups(values: object) -> tuple[list[Any], tuple[str, ...]]:
    """Group labels and, of a table of several columns, the columns' names."""
    if isinstance(values, pd.DataFrame):
        columns = tuple(map(str, values.columns))
        parts = [_labels(values[column], f"groups['{column}']") for column in values.columns]
        return (parts[0], ()) if len(parts) == 1 else (list(zip(*parts, strict=True)), columns)
    return _labels(values, "groups"), ()


def _labels(values: Any, name: str) -> list[Any]:
    if hasattr(values, "detach"):
        values = values.detach().cpu().numpy()
    if getattr(values, "ndim", 1) != 1:
        raise ShapeError(f"`{name}` must be (n,), one label per item; got shape {np.shape(values)}.")
    if not isinstance(values, Iterable):
        raise ShapeError(f"`{name}` must be a list or an array of labels; got {values!r:.60}.")
    found = []
    for position, value in enumerate(values):
        if isinstance(value, (list, np.ndarray)):
            raise ShapeError(f"`{name}` must be (n,), one label per item; got {value!r:.60} at position {position}.")
        # a tuple is a group of several values
        label = tuple(map(label_value, value)) if isinstance(value, tuple) else label_value(value)
        if label is None or (isinstance(label, tuple) and None in label):
            raise LabelError(f"`{name}` misses a label at position {position}; leave such items out first.")
        found.append(label)
    return found


def _in_order(labels: Sequence[Any], name: str) -> list[Any]:
    unique = list(dict.fromkeys(labels))
    try:
        ordered = sorted(unique)
    except TypeError:
        ordered = sorted(unique, key=lambda item: (type(item).__name__, str(item)))
    return _named(ordered, name)


def _named(labels: Sequence[object], name: str) -> list[Any]:
    """Different labels, checked that none reads like another."""
    seen: dict[Any, Any] = {}
    for label in labels:
        text = tuple(map(label_text, label)) if isinstance(label, tuple) else label_text(label)
        if text in seen:
            raise LabelError(
                f"`{name}` contains {seen[text]!r} and {label!r}, which read the same. Give labels of one type."
            )
        seen[text] = label
    return list(labels)


def _codes(labels: Sequence[object], names: list[object], name: str) -> np.ndarray:
    index = {item: code for code, item in enumerate(names)}
    for position, item in enumerate(labels):
        if item not in index:
            remedy = _remedy(item, names, name)
            raise LabelError(f"`{name}` contains {item!r} at position {position}, not one of {names}. {remedy}")
    return np.array([index[item] for item in labels], dtype=np.int64)


def _remedy(item: object, names: list[object], name: str) -> str:
    twins = [known for known in names if not isinstance(known, tuple) and str(known) == str(item)]
    if twins:
        return f"It reads like {twins[0]!r}: give text or numbers on both sides."
    if name == "y_pred":
        if isinstance(item, float) and 0 < item < 1:
            return "It looks like a probability: give the predicted class, such as (y_pred >= 0.5).astype(int)."
        return "Use the words of `y_true`, or name all classes in order: classes=[...]."
    return f"Name all of them in `{'group_names' if name == 'groups' else 'classes'}`."
