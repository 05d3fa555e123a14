"""The pictures that are not edited: copied, linked, resized, or left out."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from vlbias.balance.layout import Placing, pictures_below
from vlbias.balance.plan import Plan
from vlbias.balance.rows import GatheredRows
from vlbias.balance.run_folder import RunFolder
from vlbias.balance.task import Task
from vlbias.balance.verification import SCORES
from vlbias.data import FaceDataset
from vlbias.data.metadata import most_rows
from vlbias.data.origins import COPIED
from vlbias.data.renamed import PseudonymousFaces
from vlbias.errors import ImageError, PlanError
from vlbias.images import IMAGE_SUFFIXES, to_pil, to_tensor
from vlbias.originals import Original, private_left_out
from vlbias.progress import Progress

__all__ = [
    "ORIGINALS",
    "PROVENANCE_COLUMNS",
    "ROUND_TRIP",
    "Remade",
    "file_stem",
    "label_columns",
    "larger_than_read",
    "passed_on",
    "with_face_boxes",
    "write_originals",
]

#: What may happen to originals: ``copy`` the files, ``link`` to them, ``resize`` to the edits' size, ``omit``.
ORIGINALS = ("copy", "exact", "link", "resize", "omit")
#: Longest stem of a file's name; file systems take 255 bytes, drafts and endings included.
MAX_STEM = 120
#: What ``origin`` says of an original that passed through the editor.
ROUND_TRIP = "round-trip"
#: Columns behind the labels: where a row comes from, and the readings that verified an edit.
PROVENANCE_COLUMNS = ("origin", "source_id", "path", "strength", "seed", *(f"score_{name}" for name in SCORES))
#: What ``origin`` says of a picture that is no photograph of its own, as it was balanced or drawn before.
_MADE = frozenset({"edited", "sampled", COPIED, ROUND_TRIP, "counterfactual"})


def file_stem(item: str) -> str:
    """A safe, unique file name for an item id: unchanged where it is plain, else with a short hash."""
    safe = re.sub(r"[^A-Za-z0-9._-]+", "_", item).strip(".") or "item"
    if Path(safe).suffix.lower() in IMAGE_SUFFIXES:
        safe = safe[: -len(Path(safe).suffix)]
    changed = safe != item and safe != item[: -len(Path(item).suffix) or None]
    if changed or len(safe) > MAX_STEM or re.match(r"(edit|face)-\d|(aux|con|nul|prn|com\d|lpt\d)$", safe, re.I):
        safe = f"{safe[:MAX_STEM]}-{hashlib.sha256(item.encode()).hexdigest()[:8]}"
    return safe


def _source_file(faces: FaceDataset, item: str) -> Path | None:
    """The file behind an item; ``None`` for a picture that is drawn, not stored."""
    path = faces.path(item)
    return Path(path) if path is not None and Path(path).is_file() else None


class Remade(NamedTuple):
    """Where the new file of an original lies that passed through the editor.

    Attributes:
        chunk: the finished chunk that holds it.
        name: its name there.
        suffix: its ending, with the dot.
        digest: SHA-256 of its content.
    """

    chunk: int
    name: str
    suffix: str
    digest: str


def is_balanced(table: pd.DataFrame) -> bool:
    """Whether a table has the provenance that a balanced set has."""
    return "origin" in table.columns and set(table["origin"].dropna()) <= _MADE | {"real"}


def label_columns(faces: FaceDataset) -> list[str]:
    """The columns that edits take over from their donors: all but place and older provenance.

    Raises:
        PlanError: a column of the user's own is named like one that balancing writes.
    """
    columns = [str(column) for column in faces.table.columns if column not in ("file_name", "split")]
    if is_balanced(faces.table):
        return [column for column in columns if column not in PROVENANCE_COLUMNS]
    taken = [column for column in columns if column in (*PROVENANCE_COLUMNS, "face_box")]
    if taken:
        raise PlanError(
            f"'{faces.name}' has a column '{taken[0]}', and balancing writes one of that name (where a picture comes "
            f"from). Rename yours first: table.rename(columns={{'{taken[0]}': 'my_{taken[0]}'}}), or in its metadata."
        )
    return columns


def passed_on(faces: FaceDataset) -> pd.DataFrame:
    """The dataset's rows as they stand in the balanced set, without file names: split, labels and provenance.

    A picture that was made before keeps what is said of it; ``source_id`` then names its donor in this dataset.
    """
    table, ids = faces.table, faces.table.index.astype(str)
    rows = table[["split", *label_columns(faces)]]
    if not is_balanced(table):
        return rows.assign(origin="real", source_id=ids)
    made = table["origin"].isin(_MADE)
    older = table.reindex(columns=[column for column in PROVENANCE_COLUMNS if column in table.columns]).where(made)
    before = table["source_id"].astype(str) if "source_id" in table.columns else pd.Series(ids, index=table.index)
    donors = dict(zip(before[~made], ids[~made], strict=True))
    donor = [donors.get(name, item) if is_made else item for name, item, is_made in zip(before, ids, made, strict=True)]
    return rows.join(older.drop(columns="source_id", errors="ignore")).assign(
        origin=table["origin"].where(made, "real"), source_id=donor
    )


def larger_than_read(plan: Plan, faces: FaceDataset | None, columns: Sequence[str], *, originals: str) -> str | None:
    """Why no table would be read that has a row for each picture of the balanced set; ``None`` where one is.

    Args:
        plan: of the edits.
        faces: the dataset, if there is one.
        columns: the target and the protected attributes.
        originals: one of :data:`ORIGINALS`.
    """
    kept = 0 if faces is None or originals == "omit" else len(faces) - int(plan.table["replaces_donor"].sum())
    rows = kept + len(plan) + int(plan.table["keep_donor"].sum()) + plan.num_copies
    labels = {*([] if faces is None else label_columns(faces)), *columns}
    num_columns = 2 + len(labels) + len(PROVENANCE_COLUMNS)
    name_bytes = 20.0 if faces is None else float(np.mean([len(item) for item in faces.ids[:: 1 + len(faces) // 1000]]))
    most = most_rows(num_columns, 2 * name_bytes + 6 * num_columns)
    if rows <= most:
        return None
    return (
        f"the balanced set would have {rows:,} pictures, and a table of {num_columns} columns with more than {most:,} "
        "is not read. Balance the dataset in parts, each with an OUT of its own, or lower `limit`."
    )


def write_originals(
    run: RunFolder,
    task: Task,
    skipped: set[str],
    originals: str,
    bar: Progress,
    remade: Mapping[str, Remade],
    folder_of: Placing,
) -> tuple[pd.DataFrame, dict[str, str]]:
    """Put the originals in place; one that is there already is not written again.

    Args:
        run: the output folder.
        task: has the dataset, and the size of an editor's pictures for ``resize``.
        skipped: items that edits take the place of.
        originals: one of :data:`ORIGINALS`.
        bar: progress.
        remade: item -> its new file, for those that passed through the editor; they are put in the originals' place.
        folder_of: where a face of a split and class lies.

    Returns:
        (metadata rows, item -> what is wrong with it, for those that cannot be read).
    """
    faces, image_size = task.dataset, task.backend.image_size
    passed = passed_on(faces)
    rows = GatheredRows(["file_name", *map(str, passed.columns)], object)
    unreadable: dict[str, str] = {}
    # two ids may differ by their suffix alone (a.jpg, a.png), or by case, which not every disk keeps apart
    stems = Counter(file_stem(str(item)).lower() for item in faces.table.index)
    written = _written(run.out, sorted(set(faces.table["split"])))
    for item, values in passed.iterrows():
        item = str(item)
        if item in skipped:
            continue
        stem = file_stem(item)
        if stems[stem.lower()] > 1:
            stem = f"{stem}-{hashlib.sha256(item.encode()).hexdigest()[:8]}"
        place = f"{folder_of(str(values['split']), values[task.target])}/{stem}"
        new = remade.get(item)
        try:
            if new is not None:
                run.place(new.name, run.out / f"{place}{new.suffix}", new.chunk, new.digest)
                written[place] = f"{place}{new.suffix}"
            donor = str(values["source_id"]) if isinstance(faces, PseudonymousFaces) else None
            name = written.get(place) or _write_original(run, faces, item, place, originals, image_size, donor)
        except ImageError as error:
            unreadable[item] = faces.reason(item, error)
        else:
            row = {"file_name": name} | {str(column): value for column, value in values.items()}
            if new is not None and row["origin"] != COPIED:
                row["origin"] = ROUND_TRIP
            rows.add(row)
        bar.update(1)
    return rows.table(), unreadable


def with_face_boxes(faces: FaceDataset, table: pd.DataFrame) -> pd.DataFrame:
    """The table with where in each photograph its face lies, if there are whole photographs.

    ``face_box`` is "left,top,right,bottom" in pixels, of the upright square around the crop, which may reach beyond the
    picture; missing where the picture is the face.
    """
    known: dict[str, str] = {}
    for item in set(table["source_id"]) & set(faces.table.index):
        place = faces.placement(item)
        if place is not None:
            corners = place.corners()
            known[item] = ",".join(str(round(float(edge))) for edge in (*corners.min(axis=0), *corners.max(axis=0)))
    return table.assign(face_box=table["source_id"].map(known.get)) if known else table


def _written(out: Path, splits: Sequence[str]) -> dict[str, str]:
    """Pictures that an earlier run put in place: name without ending => name; links are made again."""
    found = [f"{split}/{name}" for split in splits for name in pictures_below(out / split)]
    return {name.removesuffix(Path(name).suffix): name for name in found if "/metadata." not in name}


def _write_original(
    run: RunFolder, faces: FaceDataset, item: str, place: str, originals: str, image_size: int, donor: str | None
) -> str:
    """Put one original in place; its name, which is ``place`` with an ending.

    If it was made before, it says ``donor`` in its provenance; ``None`` for what it says now.
    """
    source = _source_file(faces, item) if originals == "link" else None
    if source is not None:
        faces.image(item)  # what cannot be read is no part of the dataset
        name = f"{place}{source.suffix.lower()}"
        run.link(source, run.out / name)
        return name
    stored = faces.file(item) if originals in ("copy", "exact", "link") else None
    if stored is not None:
        faces.image(item)
        if originals == "copy":  # a link to a part of a file there is none, so it is copied exactly
            stored = private_left_out(stored.data, f"{place}{stored.suffix}", source=donor)
        run.put(stored.data, run.out / f"{place}{stored.suffix}")
        return f"{place}{stored.suffix}"
    if originals == "resize":
        original = Original.of_picture(to_pil(to_tensor(faces.image(item), image_size))[0])
    else:
        original = faces.original(item)
    encoded = original.encode(original.stored)
    run.put(encoded.data, run.out / f"{place}{encoded.suffix}")
    return f"{place}{encoded.suffix}"
