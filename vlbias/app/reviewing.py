"""What the second tab does, without a page: the edits of a finished run, and what people decide on them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from vlbias.app.places import allowed_folder
from vlbias.balance.review import REVIEW_FILE, Decision, add_decisions, decisions_of
from vlbias.errors import DatasetError, unknown
from vlbias.labels import group_name, in_order, label_text
from vlbias.pages.folder import RunFiles

__all__ = ["Desk", "Pair", "Selection", "open_run"]

#: Pictures are shown at no more than this many pixels on an edge.
SHOWN_PX = 512


def open_run(typed: str, roots: Sequence[Path]) -> Desk:
    """The finished run that somebody typed.

    Raises:
        DatasetError: a folder that this page may not open, or one that holds no finished run.
    """
    return Desk(RunFiles(allowed_folder(typed, roots), max_edge_px=SHOWN_PX))


@dataclass(frozen=True)
class Pair:
    """One edit beside its donor.

    Attributes:
        picture: ``file_name`` of the edit.
        donor: its ``source_id``.
        cell: class and group that it was made for.
        moved: the group that it came from and the one it went to.
        strength: of the walk, of several the longest.
        scores: what verified it, by name; without those that were not measured.
        row: of metadata.csv.
    """

    picture: str
    donor: str
    cell: str
    moved: tuple[str, str]
    strength: float
    scores: Mapping[str, float]
    row: Mapping[str, object]


@dataclass(frozen=True)
class Selection:
    """Which edits are shown, and in which order.

    Attributes:
        order: "plan", "strength", or the name of a score.
        highest_first: the order turned round.
        cell: only edits of this cell; empty for all.
        only: "all", "undecided" (by the reviewer), "accept" or "reject" (as the reviewer decided).
    """

    order: str = "plan"
    highest_first: bool = False
    cell: str = ""
    only: Literal["all", "undecided", "accept", "reject"] = "all"


class Desk:
    """A finished run that is being reviewed; several people may review it at once, each at a desk of their own."""

    def __init__(self, files: RunFiles):
        self.files = files
        self.decisions_path = files.out / REVIEW_FILE
        with files.of_one_run():
            has_pairs = bool(self.pairs)
        if not has_pairs:
            raise DatasetError(f"{files.out} has no edited picture, so there is nothing to review.")

    @cached_property
    def pairs(self) -> list[Pair]:
        """Every edit of the run, in the order of the plan."""
        target = self.files.report["target"]
        rows = self.files.edited.to_dict("records")
        columns = [name for name in self.files.table.columns if name.startswith("score_")]
        return [_pair({str(key): value for key, value in row.items()}, target, columns) for row in rows]

    @cached_property
    def orders(self) -> list[str]:
        """What edits can be sorted by."""
        scores = dict.fromkeys(name for pair in self.pairs for name in pair.scores)
        return ["plan", "strength", *scores]

    @cached_property
    def cells(self) -> list[str]:
        """Cells that edits were made for."""
        return in_order(pair.cell for pair in self.pairs)

    def decided(self, reviewer: str) -> dict[tuple[str, str], Decision]:
        """(picture, donor) => what one person decided last on it.

        Raises:
            DatasetError: ``review.csv`` is there and cannot be read.
        """
        if not self.decisions_path.exists():
            return {}
        found = decisions_of(self.decisions_path)
        return {(one.picture, one.donor): one for one in found if one.reviewer == reviewer.strip()}

    def select(self, selection: Selection, reviewer: str = "") -> list[Pair]:
        """The edits of a selection, sorted; those without the score come last.

        Raises:
            UnknownNameError: no order or cell of that name.
        """
        if selection.order not in self.orders:
            raise unknown("score", selection.order, self.orders)
        if selection.cell and selection.cell not in self.cells:
            raise unknown("cell", selection.cell, self.cells)
        decided = self.decided(reviewer)

        def is_shown(pair: Pair) -> bool:
            found = decided.get((pair.picture, pair.donor))
            state = "undecided" if found is None else found.decision
            return selection.cell in ("", pair.cell) and selection.only in ("all", state)

        shown = [pair for pair in self.pairs if is_shown(pair)]
        if selection.order == "plan":
            return shown[::-1] if selection.highest_first else shown
        sign = -1 if selection.highest_first else 1
        return sorted(shown, key=lambda pair: _place(pair, selection.order, sign))

    def images(self, pair: Pair) -> tuple[str | None, str | None]:
        """Donor and edit for ``<img src>``; ``None`` for a donor that is not in the folder."""
        return self.files.donor_image(pair.row), self.files.image(pair.picture)

    def decide(self, pair: Pair, decision: Literal["accept", "reject"], reviewer: str, reason: str = "") -> None:
        """Write a decision to ``review.csv``, at once.

        Raises:
            DatasetError: nobody is named, or the name is spelt otherwise than before.
            OutputError: the file cannot be written.
        """
        if not reviewer.strip():
            raise DatasetError("say who you are before you decide: type a name or initials under 'Reviewer'.")
        add_decisions(self.decisions_path, [Decision(pair.picture, pair.donor, decision, reviewer, reason)])

    def tally(self, reviewer: str) -> Counter[str]:
        """How many edits of this run one person accepted ("accept"), rejected ("reject") and left ("undecided")."""
        decided = self.decided(reviewer)
        found = [decided.get((pair.picture, pair.donor)) for pair in self.pairs]
        return Counter("undecided" if one is None else one.decision for one in found)


def _pair(row: Mapping[str, Any], target: str, columns: Sequence[str]) -> Pair:
    scores = {name.removeprefix("score_"): row[name] for name in columns}
    cell = group_name([f"{target}={label_text(row[target]) or 'unknown'}", str(row["to"])])
    known = {name: float(value) for name, value in scores.items() if value is not None and value == value}
    moved = (str(row["from"] or "unknown"), str(row["to"]))
    return Pair(row["file_name"], str(row["source_id"]), cell, moved, _length(row["strength"]), known, row)


def _length(strength: object) -> float:
    """The longest of the walks of one edit: "0.7;-1.2" where several paths were walked."""
    return max((float(part) for part in str(strength).split(";")), key=abs)


def _place(pair: Pair, order: str, sign: int) -> tuple[bool, float]:
    value = abs(pair.strength) if order == "strength" else pair.scores.get(order)
    return value is None, 0.0 if value is None else sign * value
