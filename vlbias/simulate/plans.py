"""Which images each simulated training set holds: exact file lists for every focal group, share and repeat.

Images of one cell (group x label) stand in a shuffled order that depends on the seed and the repeat alone; a run takes
the first so many of each cell. Quotas are Sainte-Lague's, which never take a place away when the total grows, so a
larger share holds every focal image of a smaller one: differences along a curve are differences of composition, not of
luck with the draw.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from vlbias.errors import ConfigError, LabelError, PlanError, unknown
from vlbias.files import read_json, write_json

__all__ = ["MODES", "SimulationPlan", "plan", "quotas"]

MODES = ("substitute", "add", "control")
_FORMAT = 1
Cell = tuple[str, str]


def quotas(total: int, shares: Mapping[str, float]) -> dict[str, int]:
    """Split ``total`` places by shares (any positive scale), Sainte-Lague: sums exactly, monotone in ``total``.

    Example:
        >>> quotas(10, {"a": 0.5, "b": 0.3, "c": 0.2})
        {'a': 5, 'b': 3, 'c': 2}
    """
    names = [name for name in shares if shares[name] > 0]
    counts = dict.fromkeys(shares, 0)
    if total <= 0 or not names:
        return counts
    weights = np.asarray([shares[name] for name in names], dtype=float)
    # Divisors 1, 3, 5, ...: start a little below each fair share, then hand out the rest one by one.
    floor = np.maximum(np.floor(weights / weights.sum() * total).astype(int) - 1, 0)
    for _ in range(total - int(floor.sum())):
        floor[int(np.argmax(weights / (2 * floor + 1)))] += 1
    return counts | dict(zip(names, floor.tolist(), strict=True))


@dataclass(frozen=True, eq=False)
class SimulationPlan:
    """Runs with their exact training lists, and the test list they are all judged on.

    Attributes:
        settings: what :func:`plan` was asked for, resolved (``n`` is a number).
        groups, classes: values of the protected and the target column, as text.
        runs: one row per run, indexed by its key: focal, share, repeat, mode, n, own_share (what the focal group's
            share of the list really is), and ``n[group]`` columns.
        test: ids of the test images.
        labels: id -> (group, class) of every image in play.
        subjects: id -> person; each image its own where the dataset has no subject column.
        orders: repeat -> cell -> ids in the order they are taken.
        quotas: key -> cell -> number of images.
    """

    settings: dict[str, Any]
    groups: tuple[str, ...]
    classes: tuple[str, ...]
    runs: pd.DataFrame
    test: tuple[str, ...]
    labels: dict[str, Cell] = field(repr=False)
    subjects: dict[str, str] = field(repr=False)
    orders: dict[int, dict[Cell, list[str]]] = field(repr=False)
    quotas: dict[str, dict[Cell, int]] = field(repr=False)

    def __len__(self) -> int:
        return len(self.runs)

    def files(self, key: str) -> list[str]:
        """The training list of one run, sorted."""
        if key not in self.quotas:
            raise unknown("run", key, list(self.quotas)[:20])
        order = self._order(key)
        return sorted(itertools.chain.from_iterable(order[cell][:count] for cell, count in self.quotas[key].items()))

    def repeat_of(self, key: str) -> int:
        return int(key.rsplit("|r", 1)[1])

    def table(self) -> pd.DataFrame:
        """Every file of every run: run, file, group, label."""
        rows = [(key, item, *self.labels[item]) for key in self.quotas for item in self.files(key)]
        return pd.DataFrame(rows, columns=["run", "file", "group", "label"])

    def baseline(self, key: str) -> str:
        """The run at the smallest share with the same focal group, repeat and mode."""
        return self._baselines[key]

    @cached_property
    def _baselines(self) -> dict[str, str]:
        first: dict[tuple[Any, ...], str] = {}
        columns = zip(*(self.runs[name] for name in ("focal", "repeat", "mode", "share")), strict=True)
        curves = {str(key): values for key, values in zip(self.runs.index, columns, strict=True)}
        for key, (focal, repeat, mode, share) in curves.items():
            # Each composition stands for itself.
            curve = (focal or key, repeat, mode)
            if curve not in first or share < curves[first[curve]][3]:
                first[curve] = key
        return {key: first[focal or key, repeat, mode] for key, (focal, repeat, mode, _) in curves.items()}

    def digest(self) -> str:
        """A hash of all lists: equal for equal plans."""
        text = json.dumps([[key, self.files(key)] for key in sorted(self.quotas)] + [list(self.test)])
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def describe(self) -> str:
        """The plan in a few lines."""
        s = self.settings
        sizes = self.runs["n"]
        size = str(sizes.min()) if sizes.min() == sizes.max() else f"{sizes.min()} to {sizes.max()}"
        focal = ", ".join(dict.fromkeys(self.runs["focal"])) or "given compositions"
        return (
            f"{len(self)} runs ({', '.join(dict.fromkeys(self.runs['mode']))}) of {size} training images each; focal "
            f"groups {focal}; shares {', '.join(f'{share:g}' for share in sorted(set(self.runs['share'].dropna())))}; "
            f"{s['repeats']} repeats; {len(self.test)} test images."
        )

    __str__ = describe

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the plan, every list in it, as JSON."""
        runs = {key: {"n": len(self.files(key)), "files": self.files(key)} for key in self.quotas}
        settings = {**self.settings, "digest": self.digest()}
        write_json(Path(path), {"format": _FORMAT, "settings": settings, "test": list(self.test), "runs": runs})
        return Path(path)

    def check(self, path: str | os.PathLike[str]) -> None:
        """Raise :class:`PlanError` unless the plan saved at ``path`` is this one."""
        stored = read_json(Path(path))
        if stored.get("settings", {}).get("digest") != self.digest():
            raise PlanError(f"{path} holds another plan (digest {stored.get('settings', {}).get('digest')}).")

    def _order(self, key: str) -> dict[Cell, list[str]]:
        if self.settings["nested"]:
            return self.orders[self.repeat_of(key)]
        # Independent draws: the same cells in an order of the run's own.
        seed = zlib.crc32(key.encode())
        orders = self.orders[self.repeat_of(key)]
        return {
            cell: [ids[i] for i in np.random.default_rng([seed, number]).permutation(len(ids))]
            for number, (cell, ids) in enumerate(orders.items())
        }


def plan(
    dataset: Any,
    *,
    target: str,
    protected: str,
    focal: str | Sequence[str] = "all",
    shares: Sequence[float | Mapping[str, float]] = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5),
    n: int | str = "max",
    mode: str | Sequence[str] = "substitute",
    rest: str = "natural",
    stratify: str | None = "label",
    subject: str | None = None,
    repeats: int = 5,
    nested: bool = True,
    seed: int = 0,
) -> SimulationPlan:
    """Lay out training sets in which one group's share moves.

    Args:
        dataset: anything ``load_dataset`` returns; training images come from its "train" split, test images from
            "test".
        target: column the classifiers predict. protected: column of the groups.
        focal: the groups whose share moves, one after the other: "all", one name, or several.
        shares: of the focal group, 0 <= share < 1; or whole compositions, mappings group -> share that sum to 1.
        n: training images. "substitute": of every run. "add", "control": of the run with the largest share.
            "max" takes the largest that every run allows.
        mode: "substitute" keeps n and replaces others by the focal group; "add" keeps the others and adds the focal
            group, so n grows; "control" adds the same number from the *other* groups instead, which shows what size
            alone does. Several modes may be asked for; "add" is judged against "control".
        rest: how the others share what is left: "natural" (as in the dataset) or "uniform".
        stratify: "label" gives every group in every run the label frequencies of the dataset; None leaves them to
            the draw.
        subject: column of the person. Training and test then share no person (dealt 80 / 20 by a hash of the name if
            the dataset's split does not keep them apart already), images of a person are taken together, and
            intervals resample people.
        repeats: independent draws, each with all shares.
        nested: a larger share holds the images of the smaller; False draws every run anew.
        seed: of the draws.

    Raises:
        PlanError: a run needs more images than there are; names the group (and label) and the largest n.
        LabelError: missing labels; a group without test images, or of one image.
        UnknownNameError, ConfigError: a name or setting that does not exist.

    Source: the design questions of Fan, Xiao, Washington, 2023 (racial balance in emotion recognition), whose grid,
    sizes and repeats are not known to us; these defaults are ours.
    """
    modes = (mode,) if isinstance(mode, str) else tuple(mode)
    for name in modes:
        if name not in MODES:
            raise unknown("mode", name, MODES)
    for value, allowed, what in ((rest, ("natural", "uniform"), "rest"), (stratify, ("label", None), "stratify")):
        if value not in allowed:
            raise unknown(what, str(value), [str(one) for one in allowed])
    if repeats < 1 or len(set(modes)) != len(modes) or not modes:
        raise ConfigError(f"`repeats` must be >= 1 and modes distinct; got {repeats} and {modes}.")
    if seed < 0:
        raise ConfigError(f"`seed` must be >= 0; got {seed}.")
    images = _images(dataset, target, protected, subject)
    train, test = images[images["split"] == "train"], images[images["split"] == "test"]
    groups, classes = _check(train, test, target, protected)
    compositions, numbers = _shares(shares, groups)
    names = _focal(focal, groups, bool(compositions))
    available = Counter(zip(train["group"], train["label"], strict=True))
    natural = Counter(train["group"])
    frequencies = (
        {label: float(count) for label, count in sorted(Counter(train["label"]).items())} if stratify else None
    )
    wanted = _wanted(names, numbers, compositions, modes, groups, natural if rest == "natural" else None)

    largest = _largest(wanted, available, frequencies, groups, len(train))
    if n == "max":
        if largest < 2:
            shortage = _shortage(wanted, 2, available, frequencies, groups)
            raise PlanError(f"No size is feasible: {shortage}. Leave the group out or drop its largest shares.")
        size = largest
    elif isinstance(n, Integral) and not isinstance(n, bool) and n >= 2:
        size = int(n)
        if shortage := _shortage(wanted, size, available, frequencies, groups):
            raise PlanError(f"n={size} is not feasible: {shortage}. The largest feasible n is {largest}.")
    else:
        raise ConfigError(f"`n` must be 'max' or a number >= 2; got {n!r}.")

    orders = {r: _orders(train, groups, classes, subject is not None, seed, r) for r in range(repeats)}
    quotas_of: dict[str, dict[Cell, int]] = {}
    rows = []
    for want in wanted:
        by_group = want.counts(size)
        for repeat in range(repeats):
            key = f"{want.name}|r{repeat}"
            quotas_of[key] = _cells(by_group, available, frequencies, orders[repeat])
            total = sum(by_group.values())
            rows.append(
                {
                    "run": key,
                    "focal": want.focal,
                    "share": want.share,
                    "repeat": repeat,
                    "mode": want.mode,
                    "n": total,
                    "own_share": by_group.get(want.focal, 0) / total if want.focal else float("nan"),
                    **{f"n[{group}]": by_group[group] for group in groups},
                }
            )
    settings = {
        "target": target,
        "protected": protected,
        "focal": list(names),
        "shares": [dict(one) if isinstance(one, Mapping) else float(one) for one in shares],
        "n": size,
        "modes": list(modes),
        "rest": rest,
        "stratify": stratify,
        "subject": subject,
        "repeats": repeats,
        "nested": nested,
        "seed": seed,
    }
    return SimulationPlan(
        settings,
        groups,
        classes,
        pd.DataFrame(rows).set_index("run"),
        tuple(test.index),
        dict(zip(images.index, zip(images["group"], images["label"], strict=True), strict=True)),
        dict(zip(images.index, images["subject"], strict=True)),
        orders,
        quotas_of,
    )


# ---------------------------------------------------------------------------------------------------------------------
# Reading the dataset


def _images(dataset: Any, target: str, protected: str, subject: str | None) -> pd.DataFrame:
    table = dataset.table
    place = str(getattr(dataset, "name", "the dataset"))
    for name in (target, protected, subject):
        if name is not None and name not in table.columns:
            raise unknown("column", name, [c for c in table.columns if c not in ("file_name", "split")], where=place)
    if target == protected:
        raise ConfigError(f"`target` and `protected` are both '{target}'; they must differ.")
    if "origin" in table.columns:
        table = table[table["origin"].astype(str) == "real"]
    for name in (target, protected, subject):
        if name is not None and (missing := int(table[name].isna().sum())):
            raise LabelError(
                f"`{name}` is missing for {missing} of {len(table)} images. "
                f"Select the labelled ones first: dataset.select(dataset.table['{name}'].notna())."
            )
    frame = pd.DataFrame(
        {
            "split": table["split"].astype(str),
            "group": [_text(value) for value in table[protected]],
            "label": [_text(value) for value in table[target]],
            "subject": [_text(value) for value in table[subject]] if subject else table.index.astype(str),
        },
        index=table.index.astype(str),
    )
    if subject is not None and (frame.groupby("subject")["split"].nunique() > 1).any():
        dealt = frame["subject"].map(lambda name: zlib.crc32(str(name).encode()) % 5)
        frame["split"] = np.where(dealt == 0, "test", "train")
    return frame


def _text(value: Any) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _check(
    train: pd.DataFrame, test: pd.DataFrame, target: str, protected: str
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    if train.empty or test.empty:
        raise LabelError("A simulation needs images in the splits 'train' and 'test'.")
    groups, classes = tuple(sorted(train["group"].unique())), tuple(sorted(train["label"].unique()))
    if len(groups) < 2 or len(classes) < 2:
        raise LabelError(f"Needs two groups and two classes; `{protected}` has {groups}, `{target}` has {classes}.")
    for split, frame in (("train", train), ("test", test)):
        counts = frame["group"].value_counts().reindex(list(groups), fill_value=0)
        if counts.min() < 2:
            raise LabelError(
                f"Group '{counts.idxmin()}' of `{protected}` has {counts.min()} image(s) in split '{split}'. "
                "Merge small groups or leave them out."
            )
    if unseen := sorted(set(test["group"]) - set(groups)) + sorted(set(test["label"]) - set(classes)):
        raise LabelError(f"'{unseen[0]}' is in the test split but not in the training split.")
    return groups, classes


def _shares(
    shares: Sequence[float | Mapping[str, float]], groups: tuple[str, ...]
) -> tuple[list[dict[str, float]], list[float]]:
    compositions: list[dict[str, float]] = []
    numbers: list[float] = []
    for one in shares:
        if isinstance(one, Mapping):
            for name in one:
                if str(name) not in groups:
                    raise unknown("group", str(name), groups)
            total = sum(one.values())
            if abs(total - 1) > 1e-6 or min(one.values()) < 0:
                raise ConfigError(f"A composition must be shares >= 0 that sum to 1; {dict(one)} sums to {total:g}.")
            compositions.append({group: float(one.get(group, 0.0)) for group in groups})
        else:
            if not 0 <= one < 1:
                raise ConfigError(f"A focal share must be >= 0 and below 1; got {one}.")
            numbers.append(float(one))
    if len(set(numbers)) != len(numbers) or bool(numbers) == bool(compositions):
        raise ConfigError(f"`shares` must be distinct numbers, or compositions, not both and not none; got {shares}.")
    if numbers and len(numbers) < 2:
        raise ConfigError(f"A curve needs at least two shares; got {numbers}.")
    return compositions, sorted(numbers)


def _focal(focal: str | Sequence[str], groups: tuple[str, ...], has_compositions: bool) -> tuple[str, ...]:
    if has_compositions:
        return ()
    names = groups if focal == "all" else (focal,) if isinstance(focal, str) else tuple(str(name) for name in focal)
    for name in names:
        if name not in groups:
            raise unknown("group", name, groups)
    return names


# ---------------------------------------------------------------------------------------------------------------------
# Counting


@dataclass(frozen=True)
class _Want:
    """One point of a curve before its size is known."""

    name: str
    mode: str
    focal: str
    share: float
    low: float
    high: float
    others: dict[str, float]  # weights of the other groups (of all groups for a composition)

    def counts(self, n: int) -> dict[str, int]:
        """Images per group for size ``n`` (of the largest share's run in "add" and "control")."""
        if not self.focal:
            return quotas(n, self.others)
        if self.mode == "substitute":
            own = round(self.share * n)
            return {**quotas(n - own, self.others), self.focal: own}
        base = n - round(self.high * n)
        own, least = (round(share / (1 - share) * base) for share in (self.share, self.low))
        if self.mode == "add":
            return {**quotas(base, self.others), self.focal: own}
        return {**quotas(base + own - least, self.others), self.focal: least}


def _wanted(
    focal: Sequence[str],
    numbers: Sequence[float],
    compositions: Sequence[dict[str, float]],
    modes: Sequence[str],
    groups: tuple[str, ...],
    natural: Mapping[str, int] | None,
) -> list[_Want]:
    wanted = [
        _Want(f"composition|{i}", "substitute", "", float("nan"), 0.0, 0.0, shares)
        for i, shares in enumerate(compositions)
    ]
    for mode, name, share in itertools.product(modes, focal, numbers):
        others = {group: float(natural[group]) if natural else 1.0 for group in groups if group != name}
        key = f"{mode}|{name}|{share:g}"
        wanted.append(_Want(key, mode, name, share, min(numbers), max(numbers), others))
    return wanted


def _shortage(
    wanted: Sequence[_Want],
    n: int,
    available: Mapping[Cell, int],
    frequencies: Mapping[str, float] | None,
    groups: tuple[str, ...],
) -> str:
    """What is missing for size ``n``, in words; empty if nothing is."""
    for want in wanted:
        for group, count in want.counts(n).items():
            where = f"at share {want.share:g} of '{want.focal}'" if want.focal else f"in {want.name}"
            if frequencies is None:
                have = sum(number for (g, _), number in available.items() if g == group)
                if count > have:
                    return f"group '{group}' has {have} training images and {where} needs {count}"
                continue
            for label, needed in quotas(count, frequencies).items():
                have = available.get((group, label), 0)
                if needed > have:
                    return f"group '{group}' has {have} training images labelled '{label}' and {where} needs {needed}"
    return ""


def _largest(
    wanted: Sequence[_Want],
    available: Mapping[Cell, int],
    frequencies: Mapping[str, float] | None,
    groups: tuple[str, ...],
    num_images: int,
) -> int:
    """The largest feasible n by bisection: quotas never shrink as n grows, so feasibility has one edge."""
    low, high = 0, 2 * num_images
    while low < high:
        middle = (low + high + 1) // 2
        if _shortage(wanted, middle, available, frequencies, groups):
            high = middle - 1
        else:
            low = middle
    return low


def _cells(
    by_group: Mapping[str, int],
    available: Mapping[Cell, int],
    frequencies: Mapping[str, float] | None,
    orders: Mapping[Cell, Sequence[str]],
) -> dict[Cell, int]:
    cells: dict[Cell, int] = {}
    for group, count in by_group.items():
        # Without stratification a group is one cell, drawn through all its labels at once.
        split = quotas(count, frequencies) if frequencies is not None else {"": count}
        cells |= {(group, label): number for label, number in split.items() if (group, label) in orders}
    return cells


def _orders(
    train: pd.DataFrame, groups: tuple[str, ...], classes: tuple[str, ...], by_subject: bool, seed: int, repeat: int
) -> dict[Cell, list[str]]:
    """Cell -> ids, shuffled; with subjects, people are shuffled and each person's images stay together."""
    orders: dict[Cell, list[str]] = {}
    for g, group in enumerate(groups):
        inside = train[train["group"] == group]
        for c, label in enumerate(("", *classes)):
            rows = inside if label == "" else inside[inside["label"] == label]
            ids = sorted(rows.index)
            generator = np.random.default_rng([seed, repeat, g, c])
            if by_subject:
                # One order of people per group and repeat, so that the same people come first for every label.
                people = sorted(inside["subject"].unique())
                place = dict(
                    zip(people, np.random.default_rng([seed, repeat, g]).permutation(len(people)), strict=True)
                )
                tie = dict(zip(ids, generator.permutation(len(ids)), strict=True))
                orders[group, label] = sorted(ids, key=lambda item: (place[inside.at[item, "subject"]], tie[item]))
            else:
                orders[group, label] = [ids[i] for i in generator.permutation(len(ids))]
    return orders
