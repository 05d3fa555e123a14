"""The pictures that are not edited: copied, linked, resized, or left out."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from vlbias.balance.run_folder import RunFolder
from vlbias.errors import ImageError
from vlbias.images import IMAGE_SUFFIXES, to_pil, to_tensor
from vlbias.originals import Original
from vlbias.progress import Progress

__all__ = ["ORIGINALS", "ROUND_TRIP", "Remade", "file_stem", "with_face_boxes", "write_originals"]

#: What may happen to originals: ``copy`` the files, ``link`` to them, ``resize`` to the edits' size, ``omit``.
ORIGINALS = ("copy", "link", "resize", "omit")
#: What ``origin`` says of an original that passed through the editor.
ROUND_TRIP = "round-trip"


def file_stem(item: str) -> str:
    """A safe, unique file name for an item id: unchanged where it is plain, else with a short hash."""
    safe = re.sub(r"[^A-Za-z0-9._-]+", "_", item).strip(".") or "item"
    if Path(safe).suffix.lower() in IMAGE_SUFFIXES:
        safe = safe[: -len(Path(safe).suffix)]
    if safe != item and safe != item[: -len(Path(item).suffix) or None] or re.match(r"(edit|face)-\d", safe):
        safe = f"{safe}-{hashlib.sha256(item.encode()).hexdigest()[:8]}"
    return safe


def _source_file(faces: Any, item: str) -> Path | None:
    """The file behind an item; ``None`` for a picture that is drawn, not stored."""
    path = faces.path(item)
    return Path(path) if path is not None and Path(path).is_file() else None


class Remade(NamedTuple):
    """Where the new file of an original lies that passed through the editor.

    Attributes:
        chunk: the finished chunk that holds it.
        name: its name there.
        suffix: its ending, with the dot.
    """

    chunk: int
    name: str
    suffix: str


def write_originals(
    run: RunFolder,
    faces: Any,
    skipped: set[str],
    originals: str,
    image_size: int,
    bar: Progress,
    remade: Mapping[str, Remade],
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Put the originals in place; one that is there already is not written again.

    Args:
        run: the output folder.
        faces: the dataset.
        skipped: items that edits take the place of.
        originals: one of :data:`ORIGINALS`.
        image_size: edge in pixels for ``resize``.
        bar: progress.
        remade: item -> its new file, for those that passed through the editor; they are put in the originals' place.

    Returns:
        (metadata rows, item -> what is wrong with it, for those that cannot be read).
    """
    rows: list[dict[str, Any]] = []
    unreadable: dict[str, str] = {}
    # two ids may differ by their suffix alone (a.jpg, a.png)
    stems = Counter(file_stem(str(item)) for item in faces.table.index)
    written = _written(run.out, sorted(set(faces.table["split"])))
    for item, labels in faces.table.iterrows():
        item = str(item)
        if item in skipped:
            continue
        stem = file_stem(item)
        if stems[stem] > 1:
            stem = f"{stem}-{hashlib.sha256(item.encode()).hexdigest()[:8]}"
        place = f"{labels['split']}/{stem}"
        new = remade.get(item)
        try:
            if new is not None:
                run.place(new.chunk, new.name, run.out / f"{place}{new.suffix}")
                written[place] = f"{place}{new.suffix}"
            name = written.get(place) or _write_original(run, faces, item, place, originals, image_size)
        except ImageError as error:
            unreadable[item] = str(error)
        else:
            origin = "real" if new is None else ROUND_TRIP
            values = {column: value for column, value in labels.items() if column != "file_name"}
            rows.append({"file_name": name, **values, "origin": origin, "source_id": item})
        bar.update(1)
    return rows, unreadable


def with_face_boxes(faces: Any, table: pd.DataFrame) -> pd.DataFrame:
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
    """Pictures that an earlier run put in place: name without ending => name."""
    found = [f"{split}/{entry.name}" for split in splits if (out / split).is_dir() for entry in (out / split).iterdir()]
    return {name.removesuffix(Path(name).suffix): name for name in found if "/metadata." not in name}


def _write_original(
    run: RunFolder, faces: Any, item: str, place: str, originals: str, image_size: int
) -> str:
    """Put one original in place; its name, which is ``place`` with an ending."""
    source = _source_file(faces, item) if originals in ("copy", "link") else None
    if source is not None:
        faces.image(item)  # what cannot be read is no part of the dataset
        name = f"{place}{source.suffix.lower()}"
        if originals == "copy":
            run.put(source.read_bytes(), run.out / name)
        else:
            run.link(source, run.out / name)
        return name
    if originals == "resize":
        original = Original.of_picture(to_pil(to_tensor(faces.image(item), image_size))[0])
    else:
        original = faces.original(item)
    encoded = original.encode(original.stored)
    run.put(encoded.data, run.out / f"{place}{encoded.suffix}")
    return f"{place}{encoded.suffix}"
