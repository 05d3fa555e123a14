"""Copies of a short cell's own originals: they fill what edits do not, so that the cell comes out as planned."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence, Set
from typing import Any

import pandas as pd

from vlbias.balance.originals import PROVENANCE_COLUMNS, ROUND_TRIP
from vlbias.balance.plan import CellKey, Plan
from vlbias.balance.run_folder import RunFolder
from vlbias.data import FaceDataset
from vlbias.data.origins import COPIED
from vlbias.errors import ConfigError
from vlbias.files import writing
from vlbias.seeds import item_seed

__all__ = ["check_copies", "missing_faces", "write_copies"]


def check_copies(share: float, originals: str) -> None:
    """Refuse copies of originals that are not in the set.

    Raises:
        ConfigError: says what goes together.
    """
    if share and originals == "omit":
        raise ConfigError(
            f"`copies`={share:g} writes originals of short cells once more, and originals='omit' leaves them out. Use "
            "originals='copy', or copies=0."
        )


def missing_faces(plan: Plan, kept: pd.DataFrame, faces: FaceDataset | None, lost: Set[str]) -> Counter[CellKey]:
    """How many faces each cell that copies fill is short of what was planned.

    Args:
        plan: says which cells those are.
        kept: edits that are in the set.
        faces: the dataset, where there is one.
        lost: its originals that are not in the set.
    """
    missing = Counter(zip(*(plan.table[name] for name in ("split", "target", "to")), strict=True))
    missing.update(plan.copies)
    missing.subtract(zip(*(kept[name] for name in ("split", "target", "to")), strict=True))
    if faces is not None:
        missing.update(cell for item in lost if (cell := plan.cell_of(faces.table.loc[item])) is not None)
    return Counter({cell: missing[cell] for cell in plan.copies if missing[cell] > 0})


def write_copies(
    run: RunFolder, plan: Plan, rows: Sequence[dict[str, Any]], missing: Mapping[CellKey, int]
) -> list[dict[str, Any]]:
    """Put copies beside the originals: files of the same bytes, or links where originals are links.

    Every original of a cell is copied as often as the others; which of them once more, the seed says, by their ids.

    Args:
        run: the output folder, with the originals in place.
        plan: gives the seed.
        rows: of the originals, as they stand in the metadata.
        missing: how many faces each cell is short of; a cell without an original stays so.

    Returns:
        The metadata rows of the copies.
    """
    cells: dict[CellKey, list[tuple[int, int]]] = defaultdict(list)
    for place, row in enumerate(rows) if missing else ():
        cell = plan.cell_of(row)
        if cell is not None and cell in missing and row["origin"] in ("real", ROUND_TRIP):
            cells[cell].append((item_seed(plan.settings["seed"], COPIED, row["source_id"]), place))
    copied = []
    for cell, originals in sorted(cells.items()):
        each, rest = divmod(missing[cell], len(originals))
        for rank, (_, place) in enumerate(sorted(originals)):
            if each + (rank < rest) == 0:
                break
            row = rows[place]
            labels = {name: value for name, value in row.items() if name not in PROVENANCE_COLUMNS}
            said = labels | {"origin": COPIED, "source_id": row["source_id"]}
            copied += [said | {"file_name": name} for name in _copies(run, row["file_name"], each + (rank < rest))]
    return sorted(copied, key=lambda row: row["file_name"])


def _copies(run: RunFolder, name: str, count: int) -> list[str]:
    """Copies of one file of the output; their names, which no original has: a plus sign is in none of theirs."""
    original = run.out / name
    stem, suffix = name.removesuffix(original.suffix), original.suffix
    names = [f"{stem}+copy{number}{suffix}" for number in range(1, count + 1)]
    if not names or original.is_symlink():
        for copy in names:
            run.link(original, run.out / copy)
        return names
    with writing(original):
        data = original.read_bytes()
    for copy in names:
        run.put(data, run.out / copy)
    return names
