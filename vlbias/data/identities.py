"""People of one's own: a folder for each person, or a list of pictures and people.

pictures/anna/1.jpg ...      the folder is the person; train/, val/, test/ above it are splits
list.csv                     "path,identity" and any columns: split, gender, ...; paths are relative to the list
identities.csv               beside the folders: "identity,gender,..." gives each person labels
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import pandas as pd

from vlbias.arguments import checked_call
from vlbias.data.files import (
    DEFAULT_MAX_MISSING,
    MAX_COLUMNS,
    MAX_ROW_CELLS,
    drop_missing,
    inside_root,
    leave_out_links,
    linked,
    list_images,
    read_text,
    refuse_link,
)
from vlbias.data.metadata import typed_table
from vlbias.data.people import one_split_each, split_of_person
from vlbias.data.table import SPLITS, FaceDataset, Problem, Problems
from vlbias.errors import DatasetError
from vlbias.images import IMAGE_SUFFIXES
from vlbias.labels import label_text

__all__ = ["LIST_FILE", "is_identity_list", "load_identities"]

LIST_FILE = "identities.csv"
LIST_SUFFIXES = (".csv", ".tsv", ".txt", ".lst")

_PATH_COLUMNS = ("path", "file_name", "file", "image")
_IDENTITY_COLUMNS = ("identity", "person", "subject")

Rows = list[tuple[int, dict[str, str]]]


def is_identity_list(path: Path) -> bool:
    """Whether a file is a list of pictures and people, by its name and its first line."""
    if not path.is_file() or path.suffix.lower() not in LIST_SUFFIXES:
        return False
    columns, _ = _header(_lines(path)[:1])
    return {"path", "identity"} <= set(columns)


@checked_call
def load_identities(
    root: str | os.PathLike[str], *, max_missing: float = DEFAULT_MAX_MISSING, follow_links: bool = False
) -> FaceDataset:
    """Read pictures of people; no picture is opened.

    Args:
        root: a folder with a folder for each person (and ``identities.csv``, if there is one), or a list: commas, tabs,
            semicolons or spaces between its columns; without a header they are path and identity.
        max_missing: share of the pictures in a list that may be missing, 0..1; they are left out and reported.
        follow_links: whether links below the root are gone along; otherwise they are left out and reported.

    Returns:
        ``identity`` and the list's other columns. A person is in one split: that of the column or the folder, else by a
        hash of the name (a tenth val, a tenth test). Lines that cannot be used stand in ``problems``.

    Raises:
        DatasetError: no picture, no person, or too many missing pictures.
    """
    root = Path(root)
    place = root if root.is_file() else root / LIST_FILE
    folder = place.parent
    if not folder.is_dir():
        raise DatasetError(f"{root} is not there. Give a folder with a folder for each person, or a list of them.")
    problems: list[Problem] = []
    listed: Rows = []
    if place.is_file():
        listed, problems = _read_list(refuse_link(place, follow_links=follow_links))
    if any("path" in row for _, row in listed):
        rows, more = _of_list(folder, place.name, listed, max_missing, follow_links)
    elif root.is_file():
        raise DatasetError(f"{root} names no picture; expected the columns path and identity.")
    else:
        rows, more = _of_folders(folder, {row["identity"]: row for _, row in listed}, follow_links)
    problems += more
    if not rows:
        raise DatasetError(f"{root} has no picture of a person ({len(problems)} problems).")
    splits, more = _splits(rows)
    table = pd.DataFrame({"file_name": [row["path"] for row in rows], "split": splits})
    table["identity"] = pd.array([row["identity"] for row in rows], dtype="str")
    table = table.join(_labels(rows))
    table.index = pd.Index(table["file_name"].tolist(), name="id")
    name = place.stem if root.is_file() else root.resolve().name
    return FaceDataset(name, table, root=folder, problems=problems + more)


def _lines(path: Path) -> list[str]:
    return read_text(path).replace("\r\n", "\n").replace("\r", "\n").split("\n")


def _delimiter(line: str) -> str | None:
    """What stands between the columns of a list, by its first line; ``None`` for spaces."""
    return next((sign for sign in ("\t", ",", ";") if sign in line), None)


def _cells(line: str, delimiter: str | None) -> list[str]:
    fields = line.split(delimiter)
    if delimiter is not None:
        with suppress(csv.Error):  # one cell of megabytes
            fields = next(csv.reader([line], delimiter=delimiter, skipinitialspace=True))
    return [field.strip() for field in fields]


def _header(lines: list[str]) -> tuple[list[str], bool]:
    """The columns of a list, and whether its first line names them."""
    original = _cells(lines[0], _delimiter(lines[0])) if lines and lines[0].strip() else []
    first = [cell.lower() for cell in original]
    if len(first) == 2 and Path(first[0]).suffix in IMAGE_SUFFIXES:
        return ["path", "identity"], False
    path = next((name for name in _PATH_COLUMNS if name in first), None)
    person = next((name for name in _IDENTITY_COLUMNS if name in first), None)
    renamed = {path: "path", person: "identity", "split": "split"}
    return [renamed.get(low, name) for low, name in zip(first, original, strict=True)], True


def _read_list(path: Path) -> tuple[Rows, list[Problem]]:
    """Rows with the number of their line."""
    lines = _lines(path)
    columns, has_header = _header(lines)
    delimiter = _delimiter(lines[0])
    if "identity" not in columns:
        raise DatasetError(f"{path}, line 1: names no column 'identity'; its columns are: {', '.join(columns):.300}.")
    if len(columns) > MAX_COLUMNS:
        raise DatasetError(f"{path}, line 1: has {len(columns):,} columns; at most {MAX_COLUMNS:,} are read.")
    if len(set(columns)) < len(columns):
        raise DatasetError(f"{path}, line 1: has a column twice. Rename one of: {', '.join(columns):.300}.")
    rows: Rows = []
    problems = Problems()
    for number, line in enumerate(lines[has_header:], start=1 + has_header):
        if not line.strip():
            continue
        cells = _cells(line, delimiter)
        row = dict(zip(columns, cells, strict=False))
        if len(cells) != len(columns):
            detail = f"{len(cells)} fields; expected {len(columns)}"
        elif not label_text(row["identity"]):
            detail = "no identity"
        else:
            rows.append((number, row))
            if len(rows) * len(columns) > MAX_ROW_CELLS:
                raise DatasetError(f"{path} has more than {MAX_ROW_CELLS:,} cells. Leave out columns.")
            continue
        problems.append(Problem(f"{path.name}:{number}", "malformed_line", detail))
    return rows, problems


def _of_list(
    folder: Path, name: str, listed: Rows, max_missing: float, follow_links: bool
) -> tuple[list[dict[str, str]], list[Problem]]:
    rows: list[dict[str, str]] = []
    problems = Problems()
    seen: dict[str, int] = {}
    for number, row in listed:
        clean = inside_root(row["path"])
        if clean is None:
            problems.append(Problem(f"{name}:{number}", "malformed_line", f"'{row['path']}' leaves the list's folder"))
        elif clean in seen:
            problems.append(Problem(f"{name}:{number}", "duplicate_name", f"'{clean}', first in line {seen[clean]}"))
        else:
            seen[clean] = number
            rows.append(row | {"path": clean})
    present = {name for name in seen if os.path.lexists(f"{folder}/{name}")}
    links = set() if follow_links else linked(folder, present)
    problems += leave_out_links(links, root=folder, num_left=len(rows) - len(links))
    rows = [row for row in rows if row["path"] not in links]
    is_there = [row["path"] in present and os.path.isfile(folder / row["path"]) for row in rows]
    problems += drop_missing([row["path"] for row in rows], is_there, max_missing=max_missing, root=folder)
    return [row for row, there in zip(rows, is_there, strict=True) if there], problems


def _of_folders(
    folder: Path, people: Mapping[str, dict[str, str]], follow_links: bool
) -> tuple[list[dict[str, str]], list[Problem]]:
    """Pictures by the folder that they stand in, with the labels of its person."""
    links: list[str] = []
    rows: list[dict[str, str]] = []
    problems: list[Problem] = []
    unknown_people = dict.fromkeys(people, "")
    missing = set[str]()
    columns = [column for row in people.values() for column in row if column != "identity"]
    for path in list_images(folder, follow_links=follow_links, left_out=links):
        above = path.split("/")[:-1]
        if not above or above[-1] in SPLITS:
            problems.append(Problem(path, "no_label", "stands in no person's folder"))
            continue
        person = above[-1]
        unknown_people.pop(person, None)
        if people and person not in people and person not in missing:
            missing.add(person)
            problems.append(Problem(person, "no_label", f"a folder without a line in {LIST_FILE}"))
        split = next((name for name in above[:-1] if name in SPLITS), "")
        labels = people.get(person, dict.fromkeys(columns, ""))
        rows.append({"split": split} | labels | {"path": path, "identity": person})
    problems += [Problem(who, "missing_image", f"in {LIST_FILE}, without a picture") for who in unknown_people]
    return rows, problems + leave_out_links(links, root=folder, num_left=len(rows) + len(problems))


def _labels(rows: list[dict[str, str]]) -> pd.DataFrame:
    """The other columns of a list, each in the type that its cells have; an empty cell is missing."""
    text = pd.DataFrame(rows).drop(columns=["path", "identity", "split", "file_name"], errors="ignore")
    if text.empty:
        return text
    buffer = io.StringIO(text.to_csv(index=False))
    return typed_table(pd.read_csv(buffer, keep_default_na=False, na_values=[""], dtype_backend="numpy_nullable"))


def _splits(rows: list[dict[str, str]]) -> tuple[list[str], list[Problem]]:
    """One split a person; what is written in a list and is no split is an error of the list."""
    problems = []
    people = [row["identity"] for row in rows]
    splits = []
    for row, person in zip(rows, people, strict=True):
        split = row.get("split", "")
        if split and split not in SPLITS:
            problems.append(
                Problem(row["path"], "label_out_of_range", f"split '{split}'; expected {', '.join(SPLITS)}")
            )
            split = ""
        splits.append(split or split_of_person(person))
    splits, more = one_split_each(splits, people)
    return splits, problems + more
