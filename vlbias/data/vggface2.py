"""VGGFace2 (Cao et al., 2018): 3.31 million pictures of 9,131 people, a folder each.

train/n000002/0001_01.jpg ...    8,631 people
test/n000001/0001_01.jpg ...     500 others
identity_meta.csv                "Class_ID, Name, Sample_Num, Flag, Gender"; also as meta/identity_meta.csv
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from vlbias.arguments import checked_call
from vlbias.data.files import leave_out_links, list_images, read_text, refuse_link
from vlbias.data.people import compare_counts, one_split_each, split_of_person
from vlbias.data.table import FaceDataset, Problem, Problems
from vlbias.errors import DatasetError

__all__ = ["Person", "find_vggface2", "load_vggface2", "parse_people"]

VGGFACE2_LICENSE = "VGGFace2: the terms of your copy; the photographs belong to their owners"
META_FILE = "identity_meta.csv"

_PERSON = re.compile(r"n[0-9]{6}")
# Names may hold commas, with or without quotes; the last line of each copy may lack the closing comma.
_ROW = re.compile(r"\s*(n[0-9]{6})\s*,\s*(.*?)\s*,\s*([0-9]+)\s*,\s*([01])\s*,\s*([mfMF])\s*,?\s*")
_PUBLISHED = {"people in train": 8_631, "people in test": 500, "images": 3_311_286}


class Person(NamedTuple):
    """A row of the people's list.

    Attributes:
        name: as published, with underscores.
        gender: "male" or "female", as published.
        split: "train" or "test".
    """

    name: str
    gender: str
    split: str


def parse_people(text: str, file: str = META_FILE) -> tuple[dict[str, Person], list[Problem]]:
    """Class id => person; lines that cannot be used are reported.

    Example:
        >>> parse_people('Class_ID, Name, Sample_Num, Flag, Gender\\nn000001, "14th_Dalai_Lama",424,0, m,\\n')[0]
        {'n000001': Person(name='14th_Dalai_Lama', gender='male', split='test')}
    """
    people: dict[str, Person] = {}
    problems = Problems()
    for number, line in enumerate(text.replace("\r\n", "\n").split("\n"), start=1):
        if not line.strip() or (number == 1 and line.strip().lower().startswith("class_id")):
            continue
        match = _ROW.fullmatch(line)
        if match is None:
            detail = f"expected 'Class_ID, Name, Sample_Num, Flag, Gender', got '{line.strip()[:80]}'"
        elif match[1] in people:
            detail = f"'{match[1]}' appears twice"
        else:
            gender = {"m": "male", "f": "female"}[match[5].lower()]
            people[match[1]] = Person(match[2].strip('"').strip(), gender, "train" if match[4] == "1" else "test")
            continue
        problems.append(Problem(f"{file}:{number}", "malformed_line", detail))
    return people, problems


def find_vggface2(root: Path) -> Path | None:
    """The list of people in a folder of VGGFace2; ``None`` if it is none."""
    folders = (above / part for above in (root, root / "VGG-Face2", root / "VGGFace2") for part in ("", "meta"))
    return next((folder / META_FILE for folder in folders if (folder / META_FILE).is_file()), None)


@checked_call
def load_vggface2(root: str | os.PathLike[str], *, follow_links: bool = False) -> FaceDataset:
    """Read VGGFace2; no picture is opened.

    Args:
        root: the folder with ``train/`` and ``test/``, or with the people's folders themselves.
        follow_links: whether links below the root are gone along; otherwise they are left out and reported.

    Returns:
        ``identity`` (the class id), ``gender`` as published, and the person's ``name``, which is no label. The test
        people are the published ones; of the others a tenth, by a hash of the class id, are val. Lines that cannot be
        used, pictures outside of the people's folders, people without a line and counts other than the published ones
        stand in ``problems``.

    Raises:
        DatasetError: no list of people, or no picture of them.
    """
    root = Path(root)
    meta = find_vggface2(root)
    if meta is None:
        raise DatasetError(f"{root} has no {META_FILE}. Put it there: it says who is in the test set, and all genders.")
    people, problems = parse_people(read_text(refuse_link(meta, follow_links=follow_links, root=root)), meta.name)
    links: list[str] = []
    files: list[str] = []
    found: list[str] = []
    for name in list_images(root, follow_links=follow_links, left_out=links):
        person = name.split("/")[-2] if "/" in name else ""
        if _PERSON.fullmatch(person):
            files.append(name)
            found.append(person)
        else:
            problems.append(Problem(name, "malformed_name", "not in the folder of a person, such as n000002"))
    problems += leave_out_links(links, root=root, num_left=len(files))
    if not files:
        raise DatasetError(f"{root} has no picture in a person's folder, such as train/n000002/0001_01.jpg.")
    splits = [_split(name, person, people) for name, person in zip(files, found, strict=True)]
    splits, more = one_split_each(splits, found)
    problems += more + [Problem(who, "no_label", f"no line in {meta.name}") for who in sorted(set(found) - set(people))]
    table = pd.DataFrame({"file_name": files, "split": splits, "identity": pd.array(found, dtype="str")})
    table.index = pd.Index(files, name="id")
    for column in ("gender", "name"):
        values = {who: getattr(person, column) for who, person in people.items()}
        table[column] = pd.array([values.get(person) for person in found], dtype="str")
    problems += compare_counts(meta.name, _counts(table), _PUBLISHED)
    return FaceDataset(
        "vggface2",
        table,
        root=root,
        attributes=["identity", "gender"],
        problems=problems,
        license=VGGFACE2_LICENSE,
        descriptions={"gender": "as published: m or f of the list of people", "identity": "class id, a person each"},
    )


def _split(name: str, person: str, people: dict[str, Person]) -> str:
    """By the folder, else by the list; where neither says it, by a hash of the person alone."""
    folders = [folder.removeprefix("vggface2_") for folder in name.split("/")[:-2]]
    known = people.get(person)
    if "val" in folders:
        return "val"
    if "test" in folders or (known is not None and known.split == "test" and "train" not in folders):
        return "test"
    return split_of_person(person, test=known is None and "train" not in folders)


def _counts(table: pd.DataFrame) -> dict[str, int]:
    is_test = table["split"] == "test"
    return {
        "people in train": int(table.loc[~is_test, "identity"].nunique()),
        "people in test": int(table.loc[is_test, "identity"].nunique()),
        "images": len(table),
    }
