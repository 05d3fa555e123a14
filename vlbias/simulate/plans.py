"""Which images each simulated training set holds: exact file lists for every focal group, share and repeat.

Images of one cell (group x label) stand in a shuffled order that depends on the seed and the repeat alone; a run takes
the first so many of each cell. Quotas are Sainte-Lague's, which never take a place away when the total grows, so a
larger share holds every focal image of a smaller one: differences along a curve are differences of composition, not of
luck with the draw.
"""

from __future__ import annotations

import itertools
import os
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from vlbias.arguments import checked_call
from vlbias.classify import LabelledImages
from vlbias.data.origins import origins
from vlbias.data.twins import refuse_shared_pictures
from vlbias.errors import ConfigError, LabelError, PlanError, unknown
from vlbias.files import read_object, sha256_json, write_json
from vlbias.labels import group_name, group_texts, label_texts
from vlbias.settings import Settings, number, with_changes
from vlbias.shown import Glance, Shown, plural, printable
from vlbias.simulate.noise import LabelNoise
from vlbias.simulate.quotas import Cell, Composition, Stock, compositions_of

__all__ = ["MODES", "PlanSettings", "SimulationPlan", "plan"]

MODES = ("substitute", "add", "control")
_FORMAT = 2


@dataclass(frozen=True)
class PlanSettings(Settings):
    """Which compositions are laid out.

    Args:
        focal: the groups whose share moves, one after the other: "all", one name, or several.
        shares: of the focal group, 0 <= share < 1; or whole compositions, mappings group -> share that sum to 1.
        n: training images. "substitute": of every run. "add", "control": of the run with the largest share.
            "max" takes the largest that every run allows.
        mode: "substitute" keeps n and replaces others by the focal group; "add" keeps the others and adds the focal
            group, so n grows; "control" adds the same number from the *other* groups instead, which shows what size
            alone does. Several modes may be asked for; "add" is compared with "control".
        rest: how the others share what is left: "natural" (as in the dataset) or "uniform".
        stratify: "label" gives every group in every run the label frequencies of the dataset; None leaves them to
            the draw.
        subject: column of the person. Training and test then share no person (dealt 80 / 20 by a hash of the name if
            the dataset's split does not keep them apart already), images of a person are taken together, and
            intervals resample people.
        repeats: independent draws, each with all shares.
        nested: a larger share holds the images of the smaller; False draws every run anew.
        min_cell: test images that a cell (group x label) needs for rates that rest on it; others are left out.
        label_noise: how the labeller errs whose labels the groups are; slopes and parity are then those of true groups.
        seed: of the draws.

    Raises:
        UnknownNameError, ConfigError: a name or value that makes no sense.
    """

    focal: str | Sequence[str] = "all"
    shares: Sequence[float | Mapping[str, float]] = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)
    n: int | Literal["max"] = number("max", 2)
    mode: str | Sequence[str] = "substitute"
    rest: Literal["natural", "uniform"] = "natural"
    stratify: Literal["label"] | None = "label"
    subject: str | None = None
    repeats: int = number(5, 1, 10_000)
    nested: bool = True
    min_cell: int = number(5, 1)
    label_noise: LabelNoise | None = None
    seed: int = number(0, 0)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in self.modes:
            if name not in MODES:
                raise unknown("mode", name, MODES)
        if len(set(self.modes)) != len(self.modes) or not self.modes:
            raise ConfigError(f"`mode` must name one mode or different ones; got {self.modes}.")
        self._check_shares()

    def _check_shares(self) -> None:
        for one in self.shares:
            if isinstance(one, Mapping):
                total = sum(one.values())
                if abs(total - 1) > 1e-6 or min(one.values()) < 0:
                    raise ConfigError(
                        f"A composition must be shares >= 0 that sum to 1; {dict(one)} sums to {total:g}."
                    )
            elif not 0 <= one < 1:
                raise ConfigError(f"A focal share must be >= 0 and below 1; got {one}.")
        numbers = self.focal_shares
        if len(set(numbers)) != len(numbers) or bool(numbers) == bool(self.compositions):
            raise ConfigError(
                f"`shares` must be distinct numbers, or compositions, not both and not none; got {self.shares}."
            )
        if numbers and len(numbers) < 2:
            raise ConfigError(f"A curve needs at least two shares; got {numbers}.")

    @property
    def modes(self) -> tuple[str, ...]:
        """One or several."""
        return (self.mode,) if isinstance(self.mode, str) else tuple(self.mode)

    @property
    def focal_shares(self) -> list[float]:
        """Shares of the focal group, ascending; empty where compositions are given whole."""
        return sorted(float(one) for one in self.shares if not isinstance(one, Mapping))

    @property
    def compositions(self) -> list[dict[str, float]]:
        """Whole compositions, where they were given."""
        return [dict(one) for one in self.shares if isinstance(one, Mapping)]


@dataclass(frozen=True, eq=False, repr=False)
class SimulationPlan(Shown):
    """Runs with their exact training lists, and the test list all are tested on.

    Attributes:
        target, protected: columns that classifiers predict, and of the groups.
        settings: what was asked for, resolved: ``n`` is a number, ``focal`` lists groups.
        groups, classes: values of the protected and the target column, as text.
        runs: one row per run, indexed by its key: focal, share, repeat, mode, n, own_share (what the focal group's
            share of the list really is), and ``n[group]`` columns.
        test: ids of the test images.
        labels: id -> (group, class) of every image in play.
        subjects: id -> person; each image its own where the dataset has no subject column.
        orders: repeat -> cell -> ids in the order they are taken.
        quotas: key -> cell -> number of images.
    """

    target: str
    protected: str
    settings: PlanSettings
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
        """The repeat that a run belongs to."""
        return int(key.rsplit("|r", 1)[1])

    def table(self) -> pd.DataFrame:
        """Every file of every run: run, file, group, label."""
        rows = [(key, item, *self.labels[item]) for key in self.quotas for item in self.files(key)]
        return pd.DataFrame(rows, columns=["run", "file", "group", "label"])

    def baseline(self, key: str) -> str:
        """The run at the smallest share with the same focal group, repeat and mode."""
        return self._baselines[key]

    def gain(self, key: str, cell: Cell) -> int:
        """How many more images of a cell a run takes than the run at the smallest share."""
        return self.quotas[key][cell] - self.quotas[self.baseline(key)].get(cell, 0)

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
        return sha256_json([[key, self.files(key)] for key in sorted(self.quotas)] + [list(self.test)])[:16]

    def design(self) -> str:
        """A hash that does not depend on how many repeats there are: plans that differ in that alone share runs."""
        first = [[key, self.files(key)] for key in sorted(self.quotas) if self.repeat_of(key) == 0]
        return sha256_json([first, list(self.test), self.settings.seed, self.settings.nested])[:16]

    def describe(self) -> str:
        """The plan in a few lines."""
        sizes = self.runs["n"]
        size = str(sizes.min()) if sizes.min() == sizes.max() else f"{sizes.min()} to {sizes.max()}"
        focal = ", ".join(dict.fromkeys(self.runs["focal"])) or "given compositions"
        return printable(
            f"{len(self)} runs ({', '.join(dict.fromkeys(self.runs['mode']))}) of {size} training images each; focal "
            f"groups {focal}; shares {', '.join(f'{share:g}' for share in sorted(set(self.runs['share'].dropna())))}; "
            f"{plural(self.settings.repeats, 'repeat')}; {plural(len(self.test), 'test image')}{self._noise()}."
        )

    def _noise(self) -> str:
        noise = self.settings.label_noise
        return "" if noise is None else f"; groups by a labeller that is right for {noise.describe()}"

    __str__ = describe

    def _glance(self) -> Glance:
        sizes = self.runs.groupby(["focal", "mode", "share"], sort=False)["n"].max().reset_index()
        return Glance(self.describe(), ("focal group", "mode", "share", "images"), sizes.to_numpy().tolist())

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the plan, every list in it, as JSON."""
        runs = {key: {"n": len(self.files(key)), "files": self.files(key)} for key in self.quotas}
        columns = {"target": self.target, "protected": self.protected}
        settings = {**columns, **asdict(self.settings), "digest": self.digest()}
        write_json(Path(path), {"format": _FORMAT, "settings": settings, "test": list(self.test), "runs": runs})
        return Path(path)

    def check(self, path: str | os.PathLike[str]) -> None:
        """Raise :class:`PlanError` unless the plan saved at ``path`` is this one."""
        settings = read_object(path).get("settings")
        digest = settings.get("digest") if isinstance(settings, dict) else None
        if digest != self.digest():
            raise PlanError(f"{path} contains another plan (digest {digest}).")

    def _order(self, key: str) -> dict[Cell, list[str]]:
        if self.settings.nested:
            return self.orders[self.repeat_of(key)]
        # Independent draws: the same cells in an order of the run's own.
        seed = zlib.crc32(key.encode())
        orders = self.orders[self.repeat_of(key)]
        return {
            cell: [ids[i] for i in np.random.default_rng([seed, number]).permutation(len(ids))]
            for number, (cell, ids) in enumerate(orders.items())
        }


@checked_call
def plan(
    dataset: LabelledImages,
    *,
    target: str,
    protected: str | Sequence[str],
    settings: PlanSettings | None = None,
    **changes: object,
) -> SimulationPlan:
    """Lay out training sets in which one group's share moves.

    Args:
        dataset: anything ``load_dataset`` returns; training images come from its "train" split, test images from
            "test".
        target: column the classifiers predict.
        protected: column of the groups, or several: every combination of their values is a group.
        settings: which compositions; ``changes`` are single settings on top (``shares=(0, 0.5)``).

    Raises:
        PlanError: a run needs more images than there are; names the group (and label) and the largest n.
        LabelError: missing labels; a group without test images, or of one image or person.
        UnknownNameError, ConfigError: a name or setting that does not exist.

    Source: the design questions of Fan, Xiao, Washington, 2023 (racial balance in emotion recognition), whose grid,
    sizes and repeats are not known to us; these defaults are ours.
    """
    asked = with_changes(PlanSettings, settings, changes)
    columns = [protected] if isinstance(protected, str) else list(protected)
    images = _images(dataset, target, columns, asked.subject)
    protected = group_name(columns)
    train, test = images[images["split"] == "train"], images[images["split"] == "test"]
    groups, classes = _check(train, test, target, protected)
    refuse_shared_pictures(dataset, {"train": list(train.index), "test": list(test.index)})
    focal = _focal(asked, groups)
    points = _points(asked, focal, Counter(train["group"]), groups)
    labels = {label: float(count) for label, count in sorted(Counter(train["label"]).items())}
    stock = Stock(Counter(zip(train["group"], train["label"], strict=True)), labels if asked.stratify else None)
    size = _size(asked.n, stock, points)
    noise = None if asked.label_noise is None else asked.label_noise.of(groups)
    runs, quotas_of = _runs(points, size, asked.repeats, stock, groups)
    return SimulationPlan(
        target,
        protected,
        replace(asked, n=size, focal=focal, label_noise=noise),
        groups,
        classes,
        runs,
        tuple(test.index),
        dict(zip(images.index, zip(images["group"], images["label"], strict=True), strict=True)),
        dict(zip(images.index, images["subject"], strict=True)),
        {r: _orders(train, groups, classes, asked, r) for r in range(asked.repeats)},
        quotas_of,
    )


def _images(dataset: LabelledImages, target: str, protected: Sequence[str], subject: str | None) -> pd.DataFrame:
    """split, group, label and subject of every photograph, as text, by id."""
    table = dataset.table
    place = str(getattr(dataset, "name", "the dataset"))
    columns = [name for name in (target, *protected, subject) if name is not None]
    for name in columns:
        if name not in table.columns:
            raise unknown("column", name, [c for c in table.columns if c not in ("file_name", "split")], where=place)
    if not protected or len(set(protected)) != len(protected):
        raise ConfigError(f"`protected` must name one column or different ones; got {list(protected)}.")
    if target in protected:
        raise ConfigError(f"`target` and `protected` are both '{target}'; they must differ.")
    table = table[origins(table) == "real"]
    texts = {name: label_texts(table[name]) for name in columns}
    for name, column in texts.items():
        if missing := int(column.isna().sum()):
            raise LabelError(
                f"`{name}` is missing for {missing} of {len(table)} images. "
                f"Select the labelled ones first: dataset.select(dataset.table['{name}'].notna())."
            )
    groups = group_texts(table, protected)
    frame = pd.DataFrame({"split": table["split"].astype(str), "group": groups, "label": texts[target]})
    frame["subject"] = texts[subject] if subject else table.index.astype(str)
    frame.index = table.index.astype(str)
    if subject is not None and (frame.groupby("subject")["split"].nunique() > 1).any():
        dealt = frame["subject"].map(lambda name: zlib.crc32(str(name).encode()) % 5)
        frame["split"] = np.where(dealt == 0, "test", "train")
    return frame


def _check(
    train: pd.DataFrame, test: pd.DataFrame, target: str, protected: str
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    if train.empty or test.empty:
        raise LabelError("A simulation needs images in the splits 'train' and 'test'.")
    groups, classes = tuple(sorted(train["group"].unique())), tuple(sorted(train["label"].unique()))
    if len(groups) < 2 or len(classes) < 2:
        raise LabelError(f"Needs two groups and two classes; `{protected}` has {groups}, `{target}` has {classes}.")
    for split, frame in (("train", train), ("test", test)):
        # Without a column of people each image is its own person.
        people = frame.groupby("group")["subject"].nunique().reindex(list(groups), fill_value=0)
        if people.min() < 2:
            name = people.idxmin()
            num_images = int((frame["group"] == name).sum())
            has = plural(num_images, "image") if num_images < 2 else "one person"
            raise LabelError(
                f"Group '{name}' of `{protected}` has {has} in split '{split}', so nothing tells how its people "
                "differ. Merge small groups or leave them out."
            )
    if unseen := sorted(set(test["group"]) - set(groups)) + sorted(set(test["label"]) - set(classes)):
        raise LabelError(f"'{unseen[0]}' is in the test split but not in the training split.")
    return groups, classes


def _focal(asked: PlanSettings, groups: tuple[str, ...]) -> tuple[str, ...]:
    if asked.compositions:
        return ()
    if asked.focal == "all":
        return groups
    names = (asked.focal,) if isinstance(asked.focal, str) else tuple(str(name) for name in asked.focal)
    if not names or len(set(names)) < len(names):
        raise ConfigError(f"`focal` must name 'all', a group, or different ones; got {list(names)}.")
    for name in names:
        if name not in groups:
            raise unknown("group", name, groups)
    return names


def _points(
    asked: PlanSettings, focal: Sequence[str], natural: Mapping[str, int], groups: tuple[str, ...]
) -> list[Composition]:
    points = []
    for i, shares in enumerate(asked.compositions):
        for name in shares:
            if str(name) not in groups:
                raise unknown("group", str(name), groups)
        whole = {group: float(shares.get(group, 0.0)) for group in groups}
        points.append(Composition(f"composition|{i}", "substitute", "", float("nan"), 0.0, 0.0, whole))
    weights = {group: float(natural[group]) if asked.rest == "natural" else 1.0 for group in groups}
    return points + compositions_of(focal, asked.focal_shares, asked.modes, weights)


def _size(n: int | str, stock: Stock, points: Sequence[Composition]) -> int:
    largest = stock.largest(points)
    if n == "max":
        if largest < 2:
            shortage = stock.shortage(points, 2)
            raise PlanError(f"No size is feasible: {shortage}. Leave the group out or drop its largest shares.")
        return largest
    if shortage := stock.shortage(points, int(n)):
        raise PlanError(f"n={n} is not feasible: {shortage}. The largest feasible n is {largest}.")
    return int(n)


def _runs(
    points: Sequence[Composition], size: int, repeats: int, stock: Stock, groups: tuple[str, ...]
) -> tuple[pd.DataFrame, dict[str, dict[Cell, int]]]:
    """The table of runs, and how many images of each cell they take."""
    rows, quotas_of = [], {}
    for point in points:
        by_group = point.counts(size)
        total = sum(by_group.values())
        own = by_group.get(point.focal, 0) / total if point.focal else float("nan")
        for repeat in range(repeats):
            key = f"{point.name}|r{repeat}"
            quotas_of[key] = stock.cells(by_group)
            row = {"run": key, "focal": point.focal, "share": point.share, "repeat": repeat, "mode": point.mode}
            rows.append({**row, "n": total, "own_share": own, **{f"n[{group}]": by_group[group] for group in groups}})
    return pd.DataFrame(rows).set_index("run"), quotas_of


def _orders(
    train: pd.DataFrame, groups: tuple[str, ...], classes: tuple[str, ...], asked: PlanSettings, repeat: int
) -> dict[Cell, list[str]]:
    """Cell -> ids, shuffled; with subjects, people are shuffled and each person's images stay together."""
    orders: dict[Cell, list[str]] = {}
    for g, group in enumerate(groups):
        inside = train[train["group"] == group]
        # One order of people per group and repeat, so that the same people come first for every label.
        people = sorted(inside["subject"].unique())
        drawn = np.random.default_rng([asked.seed, repeat, g]).permutation(len(people))
        place = dict(zip(people, drawn, strict=True))
        for c, label in enumerate(("", *classes)):
            rows = inside if label == "" else inside[inside["label"] == label]
            ids = sorted(rows.index)
            shuffled = np.random.default_rng([asked.seed, repeat, g, c]).permutation(len(ids))
            if asked.subject is None:
                orders[group, label] = [ids[i] for i in shuffled]
                continue
            tie = dict(zip(ids, shuffled, strict=True))
            subject = inside["subject"]
            orders[group, label] = sorted(ids, key=lambda item: (place[subject[item]], tie[item]))
    return orders
