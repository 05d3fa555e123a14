"""UTKFace (Zhang, Song and Qi, 2017): labels live in the file names, ``[age]_[gender]_[race]_[date].jpg.chip.jpg``."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pandas as pd

from vlbias.arguments import checked_call
from vlbias.attributes import OLD_FROM, SKIN_OF_RACE, age_group
from vlbias.data.files import leave_out_links, list_images, refuse_link
from vlbias.data.table import FaceDataset, Problem, hash_split
from vlbias.errors import DatasetError
from vlbias.settings import checked_number

__all__ = ["UTKFACE_LICENSE", "load_utkface", "parse_utkface_name"]

UTKFACE_LICENSE = "UTKFace: non-commercial research only; the photographs belong to their owners"

GENDERS = ("male", "female")
RACES = ("White", "Black", "Asian", "Indian", "Others")
MAX_AGE = 116

DESCRIPTIONS = {
    "age": "years, as annotated",
    "gender": "as annotated: male or female",
    "race": "as annotated: White, Black, Asian, Indian or Others",
    "age_group": "young below 40 years, old from 40 on",
    "skin": "grouping of the race label (White and Asian light, Black dark, others missing); not measured skin tone",
}

# One copy of the set has a space before the dot; date and time are digits of any length.
_NAME = re.compile(r"([0-9]{1,4})_([0-9]{1,4})_([0-9]{1,4})_([0-9]+)\s*\.jpe?g(\.chip\.jpe?g)?", re.IGNORECASE)
# The dates of the set itself have 17 digits; frames of a video may be called 3_0_2_0001.jpg.
_LOOKS_LIKE = re.compile(r"[0-9]{1,3}_[0-9](_[0-9])?_[0-9]{17}\s*\.jpe?g(\.chip\.jpe?g)?", re.IGNORECASE)


def parse_utkface_name(name: str) -> tuple[int, int, int] | Problem:
    """Age in years, gender code and race code of one file name, or what is wrong with it.

    Example:
        >>> parse_utkface_name("26_1_2_20170116184024662.jpg.chip.jpg")
        (26, 1, 2)
        >>> parse_utkface_name("39_1_20170116174525125.jpg.chip.jpg").code
        'malformed_name'
    """
    match = _NAME.fullmatch(name)
    if match is None:
        num_fields = name.split(".")[0].count("_") + 1
        detail = (
            f"{num_fields} fields before the first dot; expected age_gender_race_date"
            if num_fields != 4
            else "expected age_gender_race_date.jpg.chip.jpg, digits with underscores between them"
        )
        return Problem(name, "malformed_name", detail)
    age, gender, race = (int(match[group]) for group in (1, 2, 3))
    for label, value, top in (("age", age, MAX_AGE), ("gender", gender, 1), ("race", race, len(RACES) - 1)):
        if value > top:
            return Problem(name, "label_out_of_range", f"{label} is {value}; expected 0..{top}")
    return age, gender, race


def looks_like_utkface(names: list[str]) -> bool:
    """Whether most of these file names carry UTKFace labels."""
    return bool(names) and sum(_LOOKS_LIKE.fullmatch(name) is not None for name in names) > len(names) / 2


def _photograph(name: str) -> str:
    """One name for the photograph and its crop, ``x.jpg`` and ``x.jpg.chip.jpg``: they go to one split."""
    return re.sub(r"\.jpe?g(\.chip\.jpe?g)?$", ".jpg.chip.jpg", name, flags=re.IGNORECASE)


@checked_call
def load_utkface(root: str | os.PathLike[str], *, age_split: int = OLD_FROM, follow_links: bool = False) -> FaceDataset:
    """Read a folder of UTKFace photographs; no picture is opened.

    Args:
        root: the folder of photographs, or one that holds it as ``UTKFace/``; sub-folders are read too.
        age_split: first age in years that ``age_group`` calls old, 1..116.
        follow_links: whether links below the root are gone along; otherwise they are left out and reported.

    Returns:
        Columns ``age``, ``gender``, ``race`` and, derived, ``age_group`` and ``skin`` (see ``descriptions``). Names
        without readable labels are left out and stand in ``problems``.

    Raises:
        DatasetError: no folder, or none of its names carries labels.
        ConfigError: ``age_split`` out of range.
    """
    checked_number("age_split", age_split, low=1, high=MAX_AGE)
    root = Path(root)
    if not root.is_dir():
        raise DatasetError(f"{root} is not a folder. Give the folder of UTKFace photographs.")
    if (root / "UTKFace").is_dir():
        root = refuse_link(root / "UTKFace", follow_links=follow_links)
    rows: list[tuple[str, int, int, int]] = []
    seen: dict[str, str] = {}
    links: list[str] = []
    problems: list[Problem] = []
    for path in list_images(root, follow_links=follow_links, left_out=links):
        name = path.rsplit("/", 1)[-1]
        labels = parse_utkface_name(name)
        if isinstance(labels, Problem):
            problems.append(Problem(path, labels.code, labels.detail))
        elif name in seen:
            problems.append(Problem(path, "duplicate_name", f"the same name as {seen[name]}, which was kept"))
        else:
            seen[name] = path
            rows.append((path, *labels))
    problems += leave_out_links(links, root=root, num_left=len(rows) + len(problems))
    if not rows:
        raise DatasetError(
            f"{root} has no photograph with UTKFace labels ({len(problems)} pictures in all). "
            "Expected names such as 26_1_2_20170116184024662.jpg.chip.jpg."
        )
    table = pd.DataFrame(rows, columns=["file_name", "age", "gender", "race"])
    table.index = pd.Index(list(seen), name="id")
    table.insert(1, "split", [hash_split(_photograph(name)) for name in seen])
    table["gender"] = [GENDERS[code] for code in table["gender"]]
    table["race"] = [RACES[code] for code in table["race"]]
    table["age_group"] = [age_group(age, age_split) for age in table["age"]]
    table["skin"] = pd.array([SKIN_OF_RACE.get(race.lower()) for race in table["race"]], dtype="str")
    descriptions = DESCRIPTIONS | {"age_group": f"young below {age_split} years, old from {age_split} on"}
    return FaceDataset(
        "utkface", table, root=root, problems=problems, license=UTKFACE_LICENSE, descriptions=descriptions
    )
