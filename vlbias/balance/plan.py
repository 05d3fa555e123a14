"""Who is edited to what: from counts to a table of edits. Pure; nothing here sees an image.

Inside each class of the target attribute the protected groups are made equal (``mode="reduce"``, the published rule:
members of the larger groups are edited towards the smaller ones) or more unequal (``mode="amplify"``, the published
"+", for study). A group is one value of the protected attribute, or one combination of values of several.
"""

from __future__ import annotations

import itertools
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from vlbias.arguments import checked_call
from vlbias.balance.poles import Poles, column_labels, deciding_columns, spelled
from vlbias.balance.rows import TableRows, gathered, sha256_csv
from vlbias.data.origins import are_copies, are_originals
from vlbias.data.table import label_columns
from vlbias.errors import PlanError
from vlbias.labels import group_name, label_text
from vlbias.seeds import item_seed
from vlbias.settings import Settings, number, plain_numbers
from vlbias.shown import Glance, Shown, plural, printable

__all__ = [
    "CellKey",
    "Cost",
    "Counts",
    "EditPlanSettings",
    "Level",
    "Plan",
    "count_cells",
    "counts_table",
    "make_plan",
    "walks",
    "wanted_counts",
]

#: class -> group -> number of faces
Counts = dict[str, dict[str, int]]
#: (split, class, group)
CellKey = tuple[str, str, str]
#: How far a plan goes: a level by name, a number of faces, or group -> share.
Level = str | int | Mapping[str, float]

MODES = ("reduce", "amplify")
SOURCES = ("real", "prior")
#: Donors held in reserve for each planned edit, should the first fail; they are shared inside a chunk.
RESERVES_PER_EDIT = 3


@dataclass(frozen=True)
class Cost:
    """What a plan is expected to cost on this machine.

    Attributes:
        faces: images the plan adds.
        unet_evaluations: single-image evaluations of the denoising network.
        minutes: wall clock, from a timed evaluation; ``None`` where nothing was timed.
        megabytes: disk space of the output.
        evaluations_range: where ``unet_evaluations`` will probably lie; ``None`` without a pilot.
        pilot: edits that a pilot tried; 0 without one, where a usual number of tries is assumed.
    """

    faces: int
    unet_evaluations: int
    minutes: float | None
    megabytes: float
    evaluations_range: tuple[int, int] | None = None
    pilot: int = 0

    def __str__(self) -> str:
        time = "time not measured" if self.minutes is None else f"about {self.minutes:.1f} minutes"
        if self.minutes is not None and self.minutes < 1:
            time = "less than a minute"
        tried = ""
        if self.evaluations_range is not None:
            low, high = self.evaluations_range
            tried = f" ({f'{low:,} to {high:,}, ' if low < high else ''}after {plural(self.pilot, 'edit')} on trial)"
        return (
            f"{plural(self.faces, 'face')} to add, {self.unet_evaluations:,} UNet evaluations{tried}, {time}, "
            f"{self.megabytes:.1f} MB"
        )


def counts_table(target: str, before: Counts, after: Counts) -> tuple[list[str], list[list[str]]]:
    """Titles and rows of class x group counts before and after."""
    groups = list(next(iter(before.values()), {}))
    rows = [[name, *(f"{cells[g]:,} → {after[name][g]:,}" for g in groups)] for name, cells in before.items()]
    return [target, *groups], rows


@dataclass(frozen=True, repr=False)
class Plan(Shown):
    """A table of edits with the counts they lead to.

    Attributes:
        table: one row per edit: slot, chunk, split, target (class), donor (item id; empty in prior mode until a face
            is drawn), from, to (groups), path, direction, strength (where the search starts, signed), seed,
            replaces_donor, keep_donor, reserves (JSON list of [id, group]). Rows may be left out, and stand in any
            order; slots are names.
        counts_before, counts_after: class -> group -> faces of the balanced splits, after = if every edit is kept.
        groups: group label -> value of each protected attribute.
        settings: what the plan was made with, as plain values.
        cost: estimate, where one was asked for.
        notes: what people should know before they start, a sentence or two each.
        copies: (split, class, group) -> copies of the cell's own originals, for each cell that copies fill (0 where
            only places of edits that are turned down will need any); empty without ``copies``.

    Raises:
        PlanError: a table that lacks a column, or in which two edits share a slot.
    """

    table: pd.DataFrame
    counts_before: Counts
    counts_after: Counts
    groups: dict[str, tuple[str, ...]]
    settings: dict[str, Any] = field(default_factory=dict)
    cost: Cost | None = None
    notes: tuple[str, ...] = ()
    copies: dict[CellKey, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.table.empty:
            return
        if missing := [name for name in _COLUMNS if name not in self.table]:
            raise PlanError(f"The table of a plan has no column '{missing[0]}'. Pick rows of one that `plan` made.")
        for name in ("slot", "chunk"):
            numbers = self.table[name]
            if not pd.api.types.is_integer_dtype(numbers) or (numbers < 0).any():
                raise PlanError(f"'{name}' of a plan must be whole numbers >= 0; got {numbers.tolist()[:3]!r:.80}.")
        if (twice := self.table["slot"].duplicated()).any():
            slot = self.table["slot"][twice].iloc[0]
            raise PlanError(
                f"Slot {slot} stands in two rows of a plan; their edits would have one name. Leave one out."
            )

    def __len__(self) -> int:
        return len(self.table)

    @property
    def num_chunks(self) -> int:
        """Batches that are committed one by one."""
        return int(self.table["chunk"].max()) + 1 if len(self.table) else 0

    def chunks(self) -> list[TableRows]:
        """The edits of each chunk, as rows of :attr:`table`."""
        table = self.table
        if not table["chunk"].is_monotonic_increasing:
            table = table.sort_values("chunk", kind="stable", ignore_index=True)
        bounds = np.searchsorted(table["chunk"].to_numpy(), np.arange(self.num_chunks + 1))
        return [TableRows(table, *map(int, pair)) for pair in itertools.pairwise(bounds)]

    def which(self, flag: str, slots: pd.Series) -> npt.NDArray[np.bool_]:
        """Of each of these slots, whether ``flag`` (``replaces_donor``, ``keep_donor``) is set in :attr:`table`.

        A slot is a name, not a place: of a plan, some rows may have been picked.
        """
        named = self.table["slot"].to_numpy(dtype=int)[self.table[flag].to_numpy(dtype=bool)]
        return np.isin(slots.to_numpy(dtype=int), named)

    @property
    def num_copies(self) -> int:
        """Copies that are planned, beside those that take the place of edits."""
        return sum(self.copies.values())

    @cached_property
    def _group_names(self) -> dict[tuple[str, ...], str]:
        return {values: name for name, values in self.groups.items()}

    def cell_of(self, row: Any) -> CellKey | None:
        """The cell of a face by its row of a table; ``None`` where it is in none that is balanced."""
        values = tuple(label_text(row[column]) or "" for column in self.settings["protected"])
        group, klass = self._group_names.get(values), label_text(row[self.settings["target"]])
        if row["split"] not in self.settings["splits"] or group is None or klass not in self.counts_before:
            return None
        return str(row["split"]), klass, group

    def pick(self, rows: pd.DataFrame) -> Plan:
        """The plan of some of its edits, with the counts that these lead to; copies stay.

        Args:
            rows: of :attr:`table`, such as ``plan.table[plan.table["to"] == "dark"]``.

        Raises:
            PlanError: rows that no run could carry out.
        """
        picked = replace(self, table=rows, cost=None)  # looks at the rows
        return replace(picked, counts_after=_after(self.counts_before, rows, self.copies))

    def renamed(self, names: Mapping[str, str]) -> Plan:
        """The same plan where the donors have other names (old => new)."""

        def reserves(text: str) -> str:
            return json.dumps([[names[item], group] for item, group in json.loads(text)])

        donors = [names.get(donor, donor) for donor in self.table["donor"]]
        return replace(self, table=self.table.assign(donor=donors, reserves=self.table["reserves"].map(reserves)))

    def digest(self) -> str:
        """A hash of edits and copies: equal for equal plans."""
        digest = sha256_csv(self.table)
        if self.copies:  # a plan of edits alone keeps the digest that it had before there were copies
            digest.update(json.dumps(sorted((*cell, count) for cell, count in self.copies.items())).encode())
        return digest.hexdigest()

    def _size(self) -> str:
        edits = f"{plural(len(self), 'edit')} in {plural(self.num_chunks, 'chunk')}"
        return f"{edits}, {plural(self.num_copies, 'copy', 'copies')} of originals" if self.copies else edits

    def describe(self) -> str:
        """The plan in a few lines: edits and copies, counts of each class before and after, cost, notes."""
        lines = [self._size()]
        for target, before in self.counts_before.items():
            after = self.counts_after[target]
            cells = ", ".join(f"{group} {before[group]} -> {after[group]}" for group in before)
            lines.append(f"  {self.settings.get('target', 'target')}={target}: {cells}")
        if self.cost is not None:
            lines.append(f"  cost: {self.cost}")
        lines += [f"  note: {note}" for note in self.notes]
        return "\n".join(map(printable, lines))

    __str__ = describe

    def _glance(self) -> Glance:
        line = self._size() + (f", {self.cost}" if self.cost else "")
        target = str(self.settings.get("target", "target"))
        return Glance(line, *counts_table(target, self.counts_before, self.counts_after))


def count_cells(targets: Sequence[str], groups: Sequence[str], all_groups: Sequence[str]) -> Counts:
    """Count faces in each cell (class x group); empty cells count 0."""
    counts: Counts = {target: dict.fromkeys(all_groups, 0) for target in sorted(set(targets))}
    for target, group in zip(targets, groups, strict=True):
        counts[target][group] += 1
    return counts


@checked_call
def wanted_counts(counts: Mapping[str, int], *, to: Level = "max", mode: str = "reduce") -> dict[str, int]:
    """How many faces each group of one class is to have.

    Args:
        counts: group -> faces now; at least one group is not empty.
        to: for ``reduce``: ``"max"`` brings every group to the largest one; ``"all"`` to the size of the whole class
            (each face gets a counterfactual in every other group); a number to that many; a mapping group -> share to
            that distribution, adding as little as possible; ``"mean"`` keeps the size of the class: edits take the
            place of their donors. For ``amplify``: ``"max"`` adds an edit of each minority member to the majority,
            ``"mean"`` puts it in the place of its donor.
        mode: ``reduce`` or ``amplify``.

    Raises:
        PlanError: an unknown level or mode, a level below what is already there, or shares that do not fit the
            groups.
    """
    _check_level(to, mode)
    if not counts:
        raise PlanError("`counts` is empty; give the faces of each group of the class.")
    total, largest = sum(counts.values()), max(counts.values())
    if mode == "amplify":
        leaders = [group for group, n in counts.items() if n == largest]
        if len(leaders) != 1:
            return dict(counts)
        if to == "mean":
            return {group: total if group == leaders[0] else 0 for group in counts}
        return {group: total if group == leaders[0] else n for group, n in counts.items()}
    if isinstance(to, Mapping):
        return _wanted_shares(counts, to)
    if isinstance(to, int):
        if to < largest:
            leader = max(counts, key=lambda group: counts[group])
            raise PlanError(
                f"`to`={to} is below the {largest} faces that '{leader}' already has, and originals are kept. "
                f"Give at least {largest}, or to='mean'."
            )
        return dict.fromkeys(counts, to)
    if to == "mean":
        level, rest = divmod(total, len(counts))
        by_size = sorted(counts, key=lambda group: (-counts[group], group))
        return {group: level + (by_size.index(group) < rest) for group in counts}
    return dict.fromkeys(counts, total if to == "all" else largest)


def _wanted_shares(counts: Mapping[str, int], shares: Mapping[str, float]) -> dict[str, int]:
    missing = sorted(set(counts) ^ set(shares))
    if missing:
        raise PlanError(
            f"`to` must give a share to each group and to no other; '{missing[0]}' does not fit. "
            f"Groups: {', '.join(sorted(counts))}."
        )
    total_share = sum(shares.values())
    emptied = [group for group in counts if shares[group] == 0 and counts[group]]
    if emptied:
        raise PlanError(
            f"`to` gives '{emptied[0]}' no share, but it has {counts[emptied[0]]} faces and originals are kept. "
            "Drop them from the dataset first."
        )
    total = max(counts[group] * total_share / shares[group] for group in counts if shares[group] > 0)
    # rounding to nearest can fall one short of what is there where a share is tiny
    return {group: max(counts[group], round(total * shares[group] / total_share)) for group in counts}


@dataclass(frozen=True)
class _Stream:
    """The edits that one cell needs, with their donors in order."""

    split: str
    target: str
    to: str
    donors: list[tuple[str, str]]  # (item id, its group), one an edit
    spare: list[tuple[str, str]] = field(default_factory=list)  # who steps in where a donor fails
    replaces_donor: bool = False
    keep_donor: bool = False
    copies: int | None = None  # of the cell's own originals, beside its edits; None where copies fill nothing

    def spare_beyond(self, count: int) -> list[tuple[str, str]]:
        """Who can step in where only the first ``count`` edits are made: the spare, and the donors of the others."""
        taken = set(self.donors[:count])
        others = [donor for donor in dict.fromkeys(self.donors[count:]) if donor[0] and donor not in taken]
        return [*self.spare, *others]


@dataclass(frozen=True)
class EditPlanSettings(Settings):
    """What is planned, checked before any dataset is seen.

    Attributes:
        target: column whose classes stay as they are.
        protected: columns whose groups are made equal.
        mode, to: see :func:`wanted_counts`.
        source: ``real`` edits the table's own faces; ``prior`` edits faces drawn from the latent prior.
        splits: splits that are balanced; a donor and its edits stay in one.
        seed: draws donors and gives each edit its own seed.
        chunk_size: edits in one chunk, the unit of resuming and of shards.
        limit: at most so many edits, spread evenly over the cells; copies become fewer in the same proportion.
        copies: share of what a short cell lacks that copies of its own originals fill, 0 <= share < 1.

    Raises:
        PlanError, ConfigError: names the setting, its value and what it may be.
    """

    target: str
    protected: Sequence[str]
    mode: str = "reduce"
    to: Level = "max"
    source: str = "real"
    splits: Sequence[str] = ("train",)
    seed: int = number(0, 0)
    chunk_size: int = number(32, 1)
    limit: int | None = number(None, 1)
    copies: float = number(0.0, 0, below=1)

    def __post_init__(self) -> None:
        self._check_columns()
        object.__setattr__(self, "to", plain_numbers(self.to))
        _check_level(self.to, self.mode)
        if self.source not in SOURCES:
            raise PlanError(f"`source` must be one of {', '.join(SOURCES)}; got {self.source!r}.")
        if self.source == "prior" and self.to == "mean":
            raise PlanError("`to`='mean' puts edits in the place of their donors, which source='prior' does not have.")
        if self.source == "prior" and self.mode == "amplify":
            raise PlanError("`mode`='amplify' edits the dataset's own minority members. Use source='real'.")
        super().__post_init__()
        object.__setattr__(self, "copies", float(self.copies))
        self._check_copies()

    def _check_copies(self) -> None:
        given = f"`copies`={self.copies:g} fills short cells"
        if self.copies and self.mode == "amplify":
            raise PlanError(f"{given}, and mode='amplify' makes them no fuller. Use mode='reduce', or copies=0.")
        if self.copies and self.to == "mean":
            raise PlanError(f"{given}, and to='mean' adds no face to a class. Use to='max', or copies=0.")

    def _check_columns(self) -> None:
        target, protected = self.target, self.protected
        if not isinstance(target, str) or not target:
            raise PlanError(f"`target` must be the name of a column; got {target!r}.")
        if not isinstance(protected, list | tuple) or not all(isinstance(name, str) for name in protected):
            raise PlanError(f"`protected` must name a column or several; got {protected!r:.60}.")
        if not protected:
            raise PlanError("`protected` names no attribute. Name at least one, such as protected='age_group'.")
        if len(set(protected)) != len(protected):
            raise PlanError(f"`protected` names an attribute twice: {', '.join(protected)}.")
        if target in protected:
            raise PlanError(f"`target` and `protected` are both '{target}'. Balancing needs two different attributes.")

    def facts(self, poles: Sequence[Poles]) -> dict[str, Any]:
        """Plain values, with where the values of each protected column stand."""
        return {
            "target": self.target,
            "protected": list(self.protected),
            "poles": {pole.column: {"path": pole.name, "places": dict(pole.positions)} for pole in poles},
            "mode": self.mode,
            "to": dict(self.to) if isinstance(self.to, Mapping) else self.to,
            "source": self.source,
            "splits": list(self.splits),
            "seed": self.seed,
            "chunk_size": self.chunk_size,
            "limit": self.limit,
            # not there at 0, so that runs that were begun before there were copies go on
            **({"copies_share": self.copies} if self.copies else {}),
        }


def make_plan(
    table: pd.DataFrame | None,
    settings: EditPlanSettings,
    poles: Sequence[Poles],
    *,
    open_groups: bool = False,
    target_values: Sequence[str] = (),
    num_images: int | None = None,
) -> Plan:
    """Plan the edits that balance (or unbalance) a label table.

    Args:
        table: labels, indexed by item id, with a ``split`` column; ``None`` plans a new dataset of sampled faces.
        settings: what is wanted.
        poles: one for each protected column of ``settings``, in that order.
        open_groups: plan for every value of ``poles`` also where it does not occur (the user named the groups).
        target_values: classes of a new dataset (``table=None``).
        num_images: size of a new dataset, or ``None``.

    Returns:
        The plan; empty where nothing is missing.

    Raises:
        PlanError: names what is wrong: an unknown attribute, a single group, a cell without enough donors.
    """
    _check_poles(settings, poles)
    if table is None:
        return _plan_new(poles, target_values, num_images, settings)
    target, splits = settings.target, list(settings.splits)
    if unknown_splits := sorted(set(splits) - set(table["split"])):
        raise PlanError(
            f"`splits` names '{unknown_splits[0]}', which this dataset does not have. "
            f"Available: {', '.join(sorted(set(table['split'])))}."
        )
    cells, groups = _cells(table, target, poles, open_groups)
    cells = cells[cells["split"].isin(splits)]
    kinds = {"is_original": are_originals(table), "is_copy": are_copies(table)}
    cells = cells.assign(**{name: kind.set_axis(kind.index.astype(str)) for name, kind in kinds.items()})
    columns = ", ".join(settings.protected)
    if cells.empty:
        raise PlanError(f"No face of split {', '.join(splits)} has both '{target}' and {columns}.")
    before = count_cells(list(cells["target"]), list(cells["group"]), list(groups))
    streams = []
    for split in splits:
        part = cells[cells["split"] == split]
        for klass, members in sorted(part.groupby("target").groups.items()):
            streams += _streams(split, str(klass), part.loc[members], list(groups), settings)
    if settings.mode == "amplify" and not streams:
        raise PlanError(
            f"Nothing to amplify: no class of '{target}' has a largest group of {columns} and a smaller one with a "
            "member to edit."
        )
    edits = gathered(_rows(streams, groups, poles, settings), _COLUMNS)
    copies = _copies(streams, edits)
    notes = _notes(table[table["split"].isin(splits)], poles, open_groups)
    if len(edits):
        notes += _blanks(table, target, poles)
    if settings.copies:
        notes += _uncopied(streams, target)
    after = _after(before, edits, copies)
    return Plan(edits, before, after, groups, settings.facts(poles), notes=notes, copies=copies)


def _check_level(to: Any, mode: str) -> None:
    """``to`` is one of the levels of its mode, a number of faces >= 1, or shares >= 0."""
    if mode not in MODES:
        raise PlanError(f"`mode` must be one of {', '.join(MODES)}; got {mode!r}.")
    levels = ("max", "mean", "all") if mode == "reduce" else ("max", "mean")
    if isinstance(to, str) and to in levels:
        return
    is_number = isinstance(to, int) and not isinstance(to, bool)
    if mode != "reduce" or not (is_number or isinstance(to, Mapping)):
        more = ", a number of faces or a mapping group -> share" if mode == "reduce" else ""
        raise PlanError(f"`to` must be one of {', '.join(levels)}{more} for mode '{mode}'; got {to!r}.")
    if is_number and to < 1:
        raise PlanError(f"`to` must be at least 1 face; got {to}.")
    if isinstance(to, Mapping):
        _check_shares(to)


def _check_shares(shares: Mapping[Any, Any]) -> None:
    values = list(shares.values())
    numbers = all(isinstance(share, int | float) and math.isfinite(share) and share >= 0 for share in values)
    if not numbers or sum(values) <= 0:
        raise PlanError(f"`to` contains shares that are not >= 0 with a positive sum: {dict(shares)}.")


def _check_poles(settings: EditPlanSettings, poles: Sequence[Poles]) -> None:
    columns, names = [pole.column for pole in poles], [pole.name for pole in poles]
    if columns != list(settings.protected):
        raise PlanError(f"`poles` must be those of {', '.join(settings.protected)}; got {', '.join(columns)}.")
    if len(set(names)) != len(names):
        raise PlanError(f"Protected {', '.join(columns)} share a path ({', '.join(names)}). Name one of them.")


def _cells(
    table: pd.DataFrame, target: str, poles: Sequence[Poles], open_groups: bool
) -> tuple[pd.DataFrame, dict[str, tuple[str, ...]]]:
    """The labelled rows as (split, target, group), and the groups; rows without a label or place are left out."""
    cells = pd.DataFrame({"split": table["split"].astype(str)}, index=table.index.astype(str))
    cells["target"] = column_labels(table, target, role="target").to_numpy()
    kept = cells["target"].notna()
    values = []
    for pole in poles:
        labels = column_labels(table, pole.column, role="protected")
        placed = labels.where(labels.isin(list(pole.positions)), None)
        cells[pole.column + " "] = placed.to_numpy()  # a space: the column must not meet split or target
        kept &= cells[pole.column + " "].notna()
        present = [value for value in pole.ordered if (placed == value).any()]
        _check_present(pole, present, labels, open_groups)
        values.append(pole.ordered if open_groups else present)
    groups = {group_name(combination): combination for combination in itertools.product(*values)}
    cells = cells[kept]
    joint = [group_name(row) for row in cells[[pole.column + " " for pole in poles]].itertuples(index=False)]
    cells = cells.assign(group=joint)[["split", "target", "group"]]
    return cells, groups


def _check_present(pole: Poles, present: Sequence[str], labels: pd.Series, open_groups: bool) -> None:
    """A protected column needs two groups here, or one and the user's word that another is wanted."""
    if not present:
        values = sorted({label for label in labels if label is not None})
        raise PlanError(
            f"None of the values that have a place on '{pole.name}' ({', '.join(pole.ordered)}) occurs in "
            f"'{pole.column}', which contains {', '.join(values)}. Say where those stand: {spelled(pole, values)}."
        )
    if len(present) < 2 and not open_groups:
        raise PlanError(
            f"`protected` '{pole.column}' has a single group here ('{present[0]}'), so there is nothing to balance "
            f"against. Name the groups wanted: {spelled(pole, pole.ordered)}."
        )


def _notes(table: pd.DataFrame, poles: Sequence[Poles], open_groups: bool) -> tuple[str, ...]:
    """Faces that poles leave out, and groups that edits would fill from nothing."""
    notes = []
    for pole in poles:
        labels = [label for label in column_labels(table, pole.column, role="protected") if label is not None]
        unplaced = sorted(set(labels) - set(pole.positions))
        if unplaced:
            count = sum(label in unplaced for label in labels)
            left_out = plural(count, "face is", "faces are")
            notes.append(f"{left_out} left out: no place for '{pole.column}' = {', '.join(unplaced)}")
        absent = [value for value in pole.ordered if value not in labels] if open_groups else []
        if absent:
            notes.append(f"no face has '{pole.column}' = {', '.join(absent)}; that group is made of edits alone")
    return tuple(notes)


def _blanks(table: pd.DataFrame, target: str, poles: Sequence[Poles]) -> tuple[str, ...]:
    """Labels of the user's own that an edit makes untrue."""
    decided = deciding_columns(poles, table[label_columns(table)], target)
    return tuple(
        f"edits have '{column}' blank: it says by itself what '{protected}' is, which an edit changes"
        for column, protected in decided.items()
    )


def _uncopied(streams: Sequence[_Stream], target: str) -> tuple[str, ...]:
    """Short cells that have nothing to copy."""
    empty = [f"{target}={one.target}, {one.to} ({one.split})" for one in streams if one.copies is None]
    return (f"no original to copy, so edits alone: {'; '.join(empty)}",) if empty else ()


def _streams(
    split: str, klass: str, rows: pd.DataFrame, groups: Sequence[str], settings: EditPlanSettings
) -> list[_Stream]:
    """The edits that one class of one split needs."""
    counts = count_cells(list(rows["target"]), list(rows["group"]), groups)[klass]
    wanted = wanted_counts(counts, to=settings.to, mode=settings.mode)
    by_size = sorted(groups, key=lambda group: (-counts[group], group))
    originals, copies = Counter(rows["group"][rows["is_original"]]), set(rows.index[rows["is_copy"]])

    def turn(item: str) -> tuple[bool, int]:
        return item in copies, item_seed(settings.seed, "donor", item)

    members = {group: sorted(rows.index[rows["group"] == group], key=turn) for group in groups}
    short = [group for group in by_size if wanted[group] > counts[group]]
    if settings.to == "mean":
        return _replacing(split, klass, counts, wanted, short, members, by_size)
    streams = []
    for group in short:
        needed = wanted[group] - counts[group]
        copied = round(settings.copies * needed) if settings.copies and originals[group] else None
        needed -= copied or 0
        givers = [giver for giver in by_size if giver != group]
        if settings.source == "prior":
            # faces are drawn as they are needed, as members of the largest other group of the class
            streams.append(_Stream(split, klass, group, [("", givers[0])] * needed, copies=copied))
            continue
        # an edit of a copy would not say whose it is
        donors = [(item, giver) for giver in givers for item in members[giver] if item not in copies]
        if len(donors) < needed:
            raise PlanError(
                f"Group '{group}' of class '{klass}' needs {needed} edits, but split '{split}' has {len(donors)} "
                f"donors of that class in other groups. Lower `to`, or draw faces with source='prior'."
            )
        streams.append(_Stream(split, klass, group, donors[:needed], donors[needed:], copies=copied))
    return streams


def _replacing(
    split: str,
    klass: str,
    counts: Mapping[str, int],
    wanted: Mapping[str, int],
    short: Sequence[str],
    members: Mapping[str, list[str]],
    by_size: Sequence[str],
) -> list[_Stream]:
    """Edits that take the place of their donors: each surplus face leaves its group once.

    A spare face may only stand in for a donor of its own group, or the counts would shift; so there is one stream for
    each pair of groups.
    """
    moves: list[tuple[str, str, list[str]]] = []  # to, giver, donors
    needs = {group: wanted[group] - counts[group] for group in short}
    for giver in by_size:
        leaving = members[giver][: max(counts[giver] - wanted[giver], 0)]
        for group in short:
            donors, leaving = leaving[: needs[group]], leaving[needs[group] :]
            needs[group] -= len(donors)
            if donors:
                moves.append((group, giver, donors))
    streams = []
    for giver in by_size:
        staying = members[giver][counts[giver] - wanted[giver] :] if counts[giver] > wanted[giver] else []
        mine = [move for move in moves if move[1] == giver]
        for index, (group, _, donors) in enumerate(mine):
            spare = [(item, giver) for item in staying[index :: len(mine)]]
            streams.append(_Stream(split, klass, group, [(item, giver) for item in donors], spare, replaces_donor=True))
    return streams


def _rows(
    streams: Sequence[_Stream],
    groups: Mapping[str, tuple[str, ...]],
    poles: Sequence[Poles],
    settings: EditPlanSettings,
) -> Iterator[dict[str, Any]]:
    """Interleave the streams, cut them into chunks, and deal each stream's spare donors to its edits."""
    order = [
        (which, index)
        for index in range(max((len(stream.donors) for stream in streams), default=0))
        for which, stream in enumerate(streams)
        if index < len(stream.donors)
    ][: settings.limit]
    used = [sum(1 for other, _ in order if other == wanted) for wanted in range(len(streams))]
    spares = [stream.spare_beyond(count) for stream, count in zip(streams, used, strict=True)]
    for slot, (which, index) in enumerate(order):
        stream = streams[which]
        donor, giver = stream.donors[index]
        reserves = spares[which][index : index + RESERVES_PER_EDIT * used[which] : used[which]]
        moves = walks(poles, groups[giver], groups[stream.to])
        yield {
            "slot": slot,
            "chunk": slot // settings.chunk_size,
            "split": stream.split,
            "target": stream.target,
            "donor": donor,
            "from": giver,
            "to": stream.to,
            "path": ";".join(moves),
            "direction": ";".join("+" if strength > 0 else "-" for strength in moves.values()),
            "strength": ";".join(f"{strength:g}" for strength in moves.values()),
            "seed": item_seed(settings.seed, "edit", stream.split, stream.target, giver, stream.to, index),
            "replaces_donor": stream.replaces_donor,
            "keep_donor": stream.keep_donor,
            "reserves": json.dumps(reserves),
        }


def _copies(streams: Sequence[_Stream], edits: pd.DataFrame) -> dict[CellKey, int]:
    """Copies of each cell that has any; where a limit left out edits, as many fewer."""
    planned = Counter(zip(edits["split"], edits["target"], edits["to"], strict=True))
    copies = {}
    for stream in streams:
        if stream.copies is not None:
            cell = (stream.split, stream.target, stream.to)
            share = planned[cell] / len(stream.donors) if stream.donors else 1.0
            copies[cell] = round(stream.copies * share)
    return copies


def walks(poles: Sequence[Poles], source: Sequence[str], wanted: Sequence[str]) -> dict[str, float]:
    """Path -> signed strength that carries a median face of one group to another; unchanged attributes are left out."""
    triples = zip(poles, source, wanted, strict=True)
    return {pole.name: pole.strength(old, new) for pole, old, new in triples if old != new}


_COLUMNS = [
    *("slot", "chunk", "split", "target", "donor", "from", "to", "path", "direction", "strength", "seed"),
    *("replaces_donor", "keep_donor", "reserves"),
]


def _after(before: Counts, edits: pd.DataFrame, copies: Mapping[CellKey, int]) -> Counts:
    after = {target: dict(groups) for target, groups in before.items()}
    names = ("target", "from", "to", "keep_donor", "replaces_donor")
    for target, giver, group, keeps, replaces in zip(*(edits[name] for name in names), strict=True):
        after[target][group] += 1
        after[target][giver] += int(keeps) - int(replaces)
    for (_, target, group), count in copies.items():
        after[target][group] += count
    return after


def _plan_new(
    poles: Sequence[Poles], classes: Sequence[str], num_images: int | None, settings: EditPlanSettings
) -> Plan:
    """A new, balanced dataset of pairs: a sampled face and its edit to another group, both kept.

    Each group gives as many donors as it receives edits, so the cells come out equal and edits stand in all of them:
    the traces of editing say nothing about the group.
    """
    if (settings.source, settings.mode, settings.to) != ("prior", "reduce", "max"):
        raise PlanError("Without a dataset only source='prior', mode='reduce', to='max' can make one. Give a dataset.")
    if settings.copies:
        raise PlanError(f"`copies`={settings.copies:g} repeats faces of a dataset, and none is given. Use copies=0.")
    if len(classes) < 2:
        raise PlanError(
            f"Without a dataset `target` must be an attribute the editor has a dipole for; '{settings.target}' is "
            "not. Give a dataset that is labelled with it."
        )
    groups = {group_name(c): c for c in itertools.product(*[pole.ordered for pole in poles])}
    names = list(groups)
    if num_images is None or num_images < 2 * len(classes) * len(names):
        raise PlanError(
            f"`num_images` must be at least {2 * len(classes) * len(names)} (two for each of {len(classes)} classes x "
            f"{len(names)} groups); got {num_images}."
        )
    pairs = num_images // (2 * len(classes) * len(names))  # donors of each cell; as many edits arrive there
    streams = []
    for klass in sorted(classes):
        for place, giver in enumerate(names):
            for shift in range(1, len(names)):
                # each cell gives and receives the same number over every shift, so all cells end equal
                share = pairs // (len(names) - 1) + (shift <= pairs % (len(names) - 1))
                wanted = names[(place + shift) % len(names)]
                if share:
                    streams.append(_Stream("train", klass, wanted, [("", giver)] * share, keep_donor=True))
    before: Counts = {klass: dict.fromkeys(names, 0) for klass in sorted(classes)}
    edits = gathered(_rows(streams, groups, poles, settings), _COLUMNS)
    values = {**settings.facts(poles), "num_images": num_images}
    return Plan(edits, before, _after(before, edits, {}), groups, values)
