"""CelebA (Liu et al., 2015) with its identities: 202,599 aligned pictures of 10,177 people.

identity_CelebA.txt        "000001.jpg 2880"; given on request, the rest is read without it
list_attr_celeba.txt       count, names, then "000001.jpg -1 1 ..."
list_eval_partition.txt    "000001.jpg 0"
img_align_celeba/          the pictures; as PNG in img_align_celeba_png/

The lists may lie beside the pictures or in ``Anno``, ``Eval`` and ``Img`` as downloaded; ``.csv`` copies are read.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd

from vlbias.arguments import checked_call
from vlbias.data.celebahq import parse_attributes, parse_partition
from vlbias.data.files import (
    DEFAULT_MAX_MISSING,
    drop_missing,
    fields_of,
    is_file,
    is_number,
    leave_out_links,
    read_text,
    refuse_link,
)
from vlbias.data.people import compare_counts, one_split_each
from vlbias.data.table import FaceDataset, Problem, Problems
from vlbias.errors import DatasetError

__all__ = ["find_celeba", "load_celeba", "parse_identities"]

CELEBA_LICENSE = "CelebA: non-commercial research only; no part of it may be passed on"

ATTRIBUTES, IDENTITIES, PARTITION = "list_attr_celeba", "identity_CelebA", "list_eval_partition"
IMAGE_FOLDER = "img_align_celeba"

_PUBLISHED = {"images": 202_599, "train": 162_770, "val": 19_867, "test": 19_962}
_PUBLISHED_PEOPLE = {"people": 10_177}


def parse_identities(text: str, file: str = f"{IDENTITIES}.txt") -> tuple[dict[str, str], list[Problem]]:
    """Picture => number of the person, as text; lines that cannot be used are reported.

    Example:
        >>> people, problems = parse_identities("000001.jpg 2880\\n000002.jpg\\n")
        >>> people, problems[0].file
        ({'000001.jpg': '2880'}, 'identity_CelebA.txt:2')
    """
    people: dict[str, str] = {}
    problems = Problems()
    for number, fields in fields_of(text):
        if len(fields) != 2 or not is_number(fields[1]):
            detail = f"expected 'name person', got '{' '.join(fields)[:80]}'"
        elif fields[0] in people:
            detail = f"'{fields[0]}' appears twice"
        else:
            people[fields[0]] = str(int(fields[1]))
            continue
        problems.append(Problem(f"{file}:{number}", "malformed_line", detail))
    return people, problems


def find_celeba(root: Path) -> Path | None:
    """The file of attributes in a folder of CelebA, or in one that holds it; ``None`` if it is no CelebA."""
    for folder in (root, root / "celeba", root / "CelebA"):
        if (found := _find(folder, ATTRIBUTES)) is not None:
            return found
    return None


@checked_call
def load_celeba(
    root: str | os.PathLike[str], *, max_missing: float = DEFAULT_MAX_MISSING, follow_links: bool = False
) -> FaceDataset:
    """Read CelebA; no picture is opened.

    Args:
        root: the folder with the lists and ``img_align_celeba/``, or one that holds it as ``celeba/``.
        max_missing: share of pictures that may be missing, 0..1; the missing ones are left out and reported.
        follow_links: whether links below the root are gone along; pictures that are links are left out and reported.

    Returns:
        The 40 attributes under their own names, 0 or 1, CelebA's split, and ``identity`` where its list is there. Lines
        that cannot be used, and counts other than the published ones, stand in ``problems``.

    Raises:
        DatasetError: a list is missing or of other pictures; too many pictures are missing.
    """
    root = Path(root)
    attribute_file = find_celeba(root)
    if attribute_file is None:
        raise DatasetError(f"{root} has no {ATTRIBUTES}.txt. Give the folder of CelebA's lists and pictures.")
    folder = attribute_file.parent if attribute_file.parent.name != "Anno" else attribute_file.parent.parent
    problems = Problems()
    table = parse_attributes(_text(attribute_file, root, follow_links), attribute_file.name, problems=problems)
    partition_file = _find(folder, PARTITION)
    if partition_file is None:
        raise DatasetError(f"{folder} has no {PARTITION}.txt, CelebA's split. Put it beside {attribute_file.name}.")
    partition = parse_partition(_text(partition_file, root, follow_links), partition_file.name, problems=problems)
    table = _keep(table, [name in partition for name in table.index], partition_file.name, problems)
    files, more = _pictures(folder, table.index.tolist(), max_missing, follow_links)
    problems += more
    table.insert(0, "file_name", files)
    table.insert(1, "split", [partition[name] for name in table.index])
    found = {"images": len(table)} | {split: int((table["split"] == split).sum()) for split in ("train", "val", "test")}
    problems += compare_counts(partition_file.name, found, _PUBLISHED)
    if (identity_file := _find(folder, IDENTITIES)) is not None:
        people, more = parse_identities(_text(identity_file, root, follow_links), identity_file.name)
        problems += more
        table = _keep(table, [name in people for name in table.index], identity_file.name, problems)
        table["identity"] = pd.array([people[name] for name in table.index], dtype="str")
        problems += compare_counts(identity_file.name, {"people": len(set(people.values()))}, _PUBLISHED_PEOPLE)
        table["split"], more = one_split_each(table["split"].tolist(), table["identity"].tolist())
        problems += more
    table = table[table["file_name"] != ""]
    return FaceDataset("celeba", table, root=folder, problems=problems, license=CELEBA_LICENSE)


def _find(folder: Path, name: str) -> Path | None:
    places = (folder / part / f"{name}{end}" for part in ("", "Anno", "Eval") for end in (".txt", ".csv"))
    return next((place for place in places if place.is_file()), None)


def _text(path: Path, root: Path, follow_links: bool) -> str:
    """A list; its copies as CSV have commas where it has spaces, and a first line that begins with "image_id"."""
    text = read_text(refuse_link(path, follow_links=follow_links, root=root))
    if path.suffix != ".csv":
        return text
    first, end, rest = text.replace(",", " ").partition("\n")
    if path.stem != ATTRIBUTES and first.startswith("image_id "):
        first = ""  # the others have no line of names
    return first.removeprefix("image_id ") + end + rest


def _keep(table: pd.DataFrame, is_listed: list[bool], file: str, problems: list[Problem]) -> pd.DataFrame:
    mask = np.asarray(is_listed, dtype=bool)
    if not mask.any():
        raise DatasetError(f"{file} has none of the pictures of {ATTRIBUTES}. It belongs to other pictures.")
    problems += [Problem(name, "no_label", f"not in {file}") for name in table.index[~mask]]
    return table[mask].copy()


def _pictures(
    folder: Path, names: list[str], max_missing: float, follow_links: bool
) -> tuple[list[str], list[Problem]]:
    """The file of each picture relative to the folder, "" where it is missing; and what is wrong."""
    # the archive unpacks into a folder of its own name, so some copies have it twice
    places = [f"{part}{name}" for name in (IMAGE_FOLDER, f"{IMAGE_FOLDER}_png") for part in ("", "Img/")]
    places = [twice for place in places for twice in (f"{place}/{place.rpartition('/')[2]}", place)]
    place = next((place for place in places if (folder / place).is_dir()), None)
    if place is None:
        raise DatasetError(
            f"{folder} has no folder {IMAGE_FOLDER}/ with the pictures. Unpack {IMAGE_FOLDER}.zip there."
        )
    refuse_link(folder / place, follow_links=follow_links, root=folder)
    pictures = [entry for entry in os.scandir(folder / place) if is_file(entry)]
    links = set() if follow_links else {entry.name for entry in pictures if entry.is_symlink()}
    on_disk = {entry.name for entry in pictures} - links
    # the aligned pictures also come as PNG, under the same numbers
    stored = {name: next((n for n in (name, f"{name.removesuffix('.jpg')}.png") if n in on_disk), "") for name in names}
    problems = leave_out_links((f"{place}/{name}" for name in links), root=folder, num_left=len(on_disk))
    is_there = [bool(stored[name]) for name in names]
    problems += drop_missing([f"{place}/{n}" for n in names], is_there, max_missing=max_missing, root=folder)
    return [f"{place}/{stored[name]}" if stored[name] else "" for name in names], problems
