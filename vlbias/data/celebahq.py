"""CelebA-HQ as CelebAMask-HQ publishes it (Lee et al., 2020): 30,000 faces with the 40 attributes of CelebA.

CelebAMask-HQ-attribute-anno.txt   count, names, then "0.jpg  -1 1 ..."
CelebA-HQ-to-CelebA-mapping.txt    idx, orig_idx, orig_file
list_eval_partition.txt            CelebA's split: "000001.jpg 0"
CelebA-HQ-img/0.jpg ...            the pictures
fair_face_pseudo_labels.txt        labels by the FairFace classifier, if it is there
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pandas as pd

from vlbias.arguments import checked_call
from vlbias.attributes import SKIN_OF_RACE, age_group
from vlbias.data.files import (
    DEFAULT_MAX_MISSING,
    MAX_COLUMNS,
    drop_missing,
    fields_of,
    is_file,
    is_number,
    leave_out_links,
    read_text,
    refuse_link,
)
from vlbias.data.table import SPLITS, FaceDataset, Problem, Problems, hash_split
from vlbias.errors import ConfigError, DatasetError, LabelError

__all__ = [
    "ATTRIBUTE_FILE",
    "CELEBA_ATTRIBUTES",
    "load_celebahq",
    "parse_attributes",
    "parse_fairface",
    "parse_mapping",
    "parse_partition",
]

ATTRIBUTE_FILE = "CelebAMask-HQ-attribute-anno.txt"
MAPPING_FILE = "CelebA-HQ-to-CelebA-mapping.txt"
PARTITION_FILE = "list_eval_partition.txt"
FAIRFACE_FILE = "fair_face_pseudo_labels.txt"
IMAGE_FOLDER = "CelebA-HQ-img"

# fmt: off
CELEBA_ATTRIBUTES = (
    "5_o_Clock_Shadow", "Arched_Eyebrows", "Attractive", "Bags_Under_Eyes", "Bald", "Bangs", "Big_Lips", "Big_Nose",
    "Black_Hair", "Blond_Hair", "Blurry", "Brown_Hair", "Bushy_Eyebrows", "Chubby", "Double_Chin", "Eyeglasses",
    "Goatee", "Gray_Hair", "Heavy_Makeup", "High_Cheekbones", "Male", "Mouth_Slightly_Open", "Mustache",
    "Narrow_Eyes", "No_Beard", "Oval_Face", "Pale_Skin", "Pointy_Nose", "Receding_Hairline", "Rosy_Cheeks",
    "Sideburns", "Smiling", "Straight_Hair", "Wavy_Hair", "Wearing_Earrings", "Wearing_Hat", "Wearing_Lipstick",
    "Wearing_Necklace", "Wearing_Necktie", "Young",
)
# fmt: on

_DESCRIPTIONS = {
    "fairface_age": "age range that the FairFace classifier gave, not a person",
    "fairface_gender": "gender that the FairFace classifier gave, not a person",
    "fairface_race": "race that the FairFace classifier gave, not a person",
    "age_group": "from the age that FairFace gave: young where the range begins below 40 years, old from 40 on",
    "skin": "grouping of the race that FairFace gave (White and Asian light, Black dark, others missing); not measured",
}


def parse_attributes(text: str, file: str = ATTRIBUTE_FILE, *, problems: list[Problem] | None = None) -> pd.DataFrame:
    """The attribute annotation: one row per image, 0 or 1 in each column, indexed by the image's name.

    The count on the first line may be absent. Columns may stand in any order; those of CelebA must all be there.

    Args:
        text: what the file holds.
        file: its name, for messages.
        problems: takes the lines that cannot be used; ``None`` raises at the first.

    Raises:
        DatasetError: no names, a missing or repeated column, a row of another length, a name twice, another count.
        LabelError: a value other than -1 and 1.
    """
    lines = fields_of(text)
    first = next(lines, None)
    count = None
    if first is not None and len(first[1]) == 1 and is_number(first[1][0]):
        count = int(first[1][0])
        first = next(lines, None)
    if first is None:
        raise DatasetError(f"{file} is empty; expected a count, the attribute names and one line per image.")
    header_line, columns = first
    if not set(columns) & set(CELEBA_ATTRIBUTES):
        raise DatasetError(
            f"{file}, line {header_line}: expected the names of the attributes, got '{columns[0]:.80} ...'."
        )
    if missing := [name for name in CELEBA_ATTRIBUTES if name not in columns]:
        raise DatasetError(f"{file}, line {header_line}: lacks the column {', '.join(missing[:5])}.")
    if len(columns) > MAX_COLUMNS:
        raise DatasetError(f"{file}, line {header_line}: {len(columns):,} columns; at most {MAX_COLUMNS:,} are read.")
    if len(set(columns)) < len(columns):
        twice = sorted({name for name in columns if columns.count(name) > 1})
        raise DatasetError(f"{file}, line {header_line}: has a column twice: {', '.join(twice)}.")
    names: dict[str, int] = {}
    rows: list[bytes] = []
    left_out = Problems()
    for number, (name, *values) in lines:
        try:
            rows.append(_attribute_row(name, values, columns, names))
        except DatasetError as error:
            if problems is None:
                raise type(error)(f"{file}, line {number}: {error}") from error
            left_out.append(Problem(f"{file}:{number}", "malformed_line", str(error)))
        else:
            names[name] = number
    if count is not None and count != len(rows) + len(left_out):
        announced = f"announces {count} images in its first line and has {len(rows) + len(left_out)}"
        if problems is None:
            raise DatasetError(f"{file} {announced}. Fetch it again.")
        left_out.append(Problem(file, "other_count", announced))
    if not rows:
        raise DatasetError(f"{file} names no image.")
    if problems is not None:
        problems += left_out
    values_01 = np.frombuffer(b"".join(rows), np.uint8).reshape(len(rows), len(columns)).astype(np.int64)
    return pd.DataFrame(values_01, columns=columns, index=pd.Index(list(names), name="id"))


def _attribute_row(name: str, values: list[str], columns: list[str], seen: dict[str, int]) -> bytes:
    """One byte a column, 0 or 1: a tenth of the memory of the texts of 200,000 lines."""
    if len(values) != len(columns):
        raise DatasetError(f"'{name}' has {len(values)} values; expected {len(columns)}.")
    if os.path.basename(name) != name or "\\" in name:
        raise DatasetError(f"'{name}' is a path; expected the name of a picture.")
    if name in seen:
        raise DatasetError(f"'{name}' appears twice, first in line {seen[name]}.")
    for column, value in zip(columns, values, strict=True):
        if value not in ("1", "-1"):
            raise LabelError(f"'{name}' has {column}={value}; expected -1 or 1.")
    return bytes(value == "1" for value in values)


def parse_mapping(text: str, file: str = MAPPING_FILE) -> dict[int, str]:
    """Index in CelebA-HQ => file name in CelebA; the header row may be absent.

    Raises:
        DatasetError: a line that is not "idx orig_idx orig_file", or an index twice.
    """
    mapping: dict[int, str] = {}
    for position, (number, fields) in enumerate(fields_of(text)):
        if position == 0 and fields[0].lower() == "idx":
            continue
        if len(fields) != 3 or not is_number(fields[0]):
            got = " ".join(fields)
            raise DatasetError(f"{file}, line {number}: expected 'idx orig_idx orig_file', got '{got:.80}'.")
        if int(fields[0]) in mapping:
            raise DatasetError(f"{file}, line {number}: the index {fields[0]} appears twice.")
        mapping[int(fields[0])] = fields[2]
    return mapping


def parse_partition(text: str, file: str = PARTITION_FILE, *, problems: list[Problem] | None = None) -> dict[str, str]:
    """File name in CelebA => ``"train"``, ``"val"`` or ``"test"``; a header row may be there.

    Args:
        text: what the file holds.
        file: its name, for messages.
        problems: takes the lines that cannot be used; ``None`` raises at the first.

    Raises:
        DatasetError: a line that is not a name and a number, or a name twice.
        LabelError: another number than 0, 1, 2.
    """
    partition: dict[str, str] = {}
    for position, (number, fields) in enumerate(fields_of(text)):
        if position == 0 and len(fields) == 2 and not re.search(r"\d", fields[0] + fields[1]):
            continue
        try:
            name, split = _partition_row(fields, partition)
        except DatasetError as error:
            if problems is None:
                raise type(error)(f"{file}, line {number}: {error}") from error
            problems.append(Problem(f"{file}:{number}", "malformed_line", str(error)))
        else:
            partition[name] = split
    return partition


def _partition_row(fields: list[str], seen: dict[str, str]) -> tuple[str, str]:
    if len(fields) != 2:
        raise DatasetError(f"expected 'name split', got '{' '.join(fields)[:80]}'.")
    name, code = fields
    if code not in ("0", "1", "2"):
        raise LabelError(f"'{name}' has split {code}; expected 0, 1 or 2.")
    if name in seen:
        raise DatasetError(f"'{name}' appears twice.")
    return name, SPLITS[int(code)]


def parse_fairface(text: str, file: str = FAIRFACE_FILE) -> pd.DataFrame:
    """FairFace's labels of each image; white space or commas may stand between them.

    Columns go by their header ("file", "age", "gender", "race", "service_test"; others are passed over), or without one
    are ``image age gender race``, a race of one or several words. The published pseudo-labels have whole numbers under
    the header ``image_name age gender skin_color``: age 1 is old, skin 0 and 2 are light, 1 is dark, 3 is not used.

    Returns:
        Indexed by ``"<number>.jpg"``: ``fairface_age``, ``fairface_gender``, ``fairface_race`` as text, as far as they
        are there, and of numbers ``age_group`` and ``skin``.

    Raises:
        DatasetError: a line of another number of fields, a header without the image, or an image twice.
        LabelError: a number that stands for nothing.
    """
    has_commas = "," in text
    lines = [(number, _fields(fields, has_commas)) for number, fields in fields_of(text)]
    header = [field.lower() for field in lines[0][1]] if lines else []
    columns = ["image", "age", "gender", "race"]
    if {"age", "gender"} & set(header):
        columns = ["image" if name in _IMAGE_HEADERS else name for name in header]
        lines = lines[1:]
        if "image" not in columns:
            raise DatasetError(f"{file}, line 1: no column names the image; expected {', '.join(_IMAGE_HEADERS)}.")
    rows: dict[str, dict[str, str]] = {}
    for number, fields in lines:
        if columns[-1] == "race":  # of several words
            fields = [*fields[: len(columns) - 1], " ".join(fields[len(columns) - 1 :])]
        if len(fields) != len(columns) or not fields[-1]:
            got = " ".join(fields).strip()
            raise DatasetError(f"{file}, line {number}: expected '{' '.join(columns)}', got '{got:.200}'.")
        row = dict(zip(columns, fields, strict=True))
        name = os.path.basename(row["image"])
        name = name if os.path.splitext(name)[1] else f"{name}.jpg"
        if name in rows:
            raise DatasetError(f"{file}, line {number}: '{name}' appears twice.")
        rows[name] = _of_codes(row, f"{file}, line {number}") if "skin_color" in row else _of_words(row)
    return pd.DataFrame.from_dict(rows, orient="index", dtype="str")


_IMAGE_HEADERS = ("image", "image_name", "img", "file", "file_name", "face_name_align")
#: Codes of the published pseudo-labels => labels; ``None`` for a code that has none.
_CODES: dict[str, dict[str, str | None]] = {
    "age": {"0": "young", "1": "old"},
    "skin_color": {"0": "light", "1": "dark", "2": "light", "3": None},
}


def _fields(fields: list[str], has_commas: bool) -> list[str]:
    return [field.strip() for field in " ".join(fields).split(",")] if has_commas else fields


def _of_words(row: dict[str, str]) -> dict[str, str]:
    return {f"fairface_{name}": row[name].replace("_", " ") for name in ("age", "gender", "race") if name in row}


def _of_codes(row: dict[str, str], where: str) -> dict[str, str]:
    for column, known in _CODES.items():
        if row.get(column) not in known:
            codes = ", ".join(known)
            raise LabelError(f"{where}: {column} is {row.get(column)!r}; expected one of the published codes {codes}.")
    labels = {"age_group": _CODES["age"][row["age"]], "skin": _CODES["skin_color"][row["skin_color"]]}
    gender = {"fairface_gender": row["gender"]} if "gender" in row else {}
    return {name: label for name, label in labels.items() if label is not None} | gender


@checked_call
def load_celebahq(
    root: str | os.PathLike[str],
    *,
    split: str = "celeba",
    labels_only: bool = False,
    max_missing: float = DEFAULT_MAX_MISSING,
    follow_links: bool = False,
) -> FaceDataset:
    """Read CelebA-HQ; no picture is opened.

    Args:
        root: the folder with the annotation files and ``CelebA-HQ-img/``.
        split: ``"celeba"`` for CelebA's own partition (needs the mapping and the partition file), ``"hash"`` for a
            tenth test and a tenth val by file name.
        labels_only: read the labels although the pictures are not there; asking for a picture is then an error.
        max_missing: share of pictures that may be missing, 0..1; the missing ones are left out and reported.
        follow_links: whether links below the root are gone along; pictures that are links are left out and reported.

    Returns:
        The 40 attributes under their own names, 0 or 1; with FairFace's pseudo-labels also ``fairface_*``,
        ``age_group`` and ``skin``.

    Raises:
        DatasetError: an annotation file is missing, damaged, or of other images; too many pictures are missing.
        ConfigError: an option out of range.
    """
    if split not in ("celeba", "hash"):
        raise ConfigError(f"`split` must be 'celeba' or 'hash'; got '{split}'.")
    root = Path(root)
    if not root.is_dir():
        raise DatasetError(f"{root} is not a folder. Give the folder of CelebAMask-HQ.")
    for name in (ATTRIBUTE_FILE, MAPPING_FILE, PARTITION_FILE, FAIRFACE_FILE, IMAGE_FOLDER):
        refuse_link(root / name, follow_links=follow_links)
    annotation = root / ATTRIBUTE_FILE
    table = parse_attributes(read_text(annotation), str(annotation))
    names = table.index.tolist()
    files, problems = _find_pictures(
        root, names, labels_only=labels_only, max_missing=max_missing, follow_links=follow_links
    )
    splits = _celeba_splits(root, names) if split == "celeba" else [hash_split(name) for name in names]
    table.insert(0, "file_name", [file or "" for file in files])
    table.insert(1, "split", splits)
    descriptions: dict[str, str] = {}
    if (root / FAIRFACE_FILE).is_file():
        table, more = _with_fairface(table, root / FAIRFACE_FILE)
        problems += more
        descriptions = {name: text for name, text in _DESCRIPTIONS.items() if name in table}
    table = table[[file is not None for file in files]]
    return FaceDataset(
        "celebahq",
        table,
        root=None if labels_only else root,
        problems=problems,
        license="CelebA and CelebAMask-HQ: non-commercial research only",
        descriptions=descriptions,
    )


def _find_pictures(
    root: Path, names: list[str], *, labels_only: bool, max_missing: float, follow_links: bool
) -> tuple[list[str | None], list[Problem]]:
    """The file of each annotated image relative to the root, ``None`` where it is missing; and what is wrong."""
    if labels_only:
        return [f"{IMAGE_FOLDER}/{name}" for name in names], []
    folder = root / IMAGE_FOLDER
    if not folder.is_dir():
        raise DatasetError(
            f"{root} has no folder {IMAGE_FOLDER}/ with the pictures. Put them there, or pass labels_only=True."
        )
    pictures = [entry for entry in os.scandir(folder) if is_file(entry)]
    links = set() if follow_links else {entry.name for entry in pictures if entry.is_symlink()}
    on_disk = {entry.name for entry in pictures} - links
    files: list[str | None] = []
    for name in names:
        # some copies are PNG under the same numbers
        found = next((file for file in (name, f"{os.path.splitext(name)[0]}.png") if file in on_disk), None)
        files.append(f"{IMAGE_FOLDER}/{found}" if found else None)
    expected = [f"{IMAGE_FOLDER}/{name}" for name in names]
    problems = leave_out_links((f"{IMAGE_FOLDER}/{name}" for name in links), root=root, num_left=len(on_disk))
    problems += drop_missing(expected, [file is not None for file in files], max_missing=max_missing, root=root)
    return files, problems


def _celeba_splits(root: Path, names: list[str]) -> list[str]:
    mapping = parse_mapping(read_text(root / MAPPING_FILE), str(root / MAPPING_FILE))
    partition = parse_partition(read_text(root / PARTITION_FILE), str(root / PARTITION_FILE))
    splits = []
    for name in names:
        stem = os.path.splitext(name)[0]
        original = mapping.get(int(stem)) if is_number(stem) else None
        if original is None:
            raise DatasetError(f"{root / MAPPING_FILE} has no line for the annotated '{name}'. Use the published file.")
        if original not in partition:
            raise DatasetError(f"{root / PARTITION_FILE} has no line for '{original}', the original of '{name}'.")
        splits.append(partition[original])
    return splits


def _with_fairface(table: pd.DataFrame, path: Path) -> tuple[pd.DataFrame, list[Problem]]:
    labels = parse_fairface(read_text(path), str(path))
    strangers = [name for name in labels.index if name not in table.index]
    if len(strangers) == len(labels):
        first = f", the first is '{strangers[0]}'" if strangers else ""
        raise DatasetError(f"{path} has no label for any annotated image{first}. It belongs to other images.")
    problems = [Problem(name, "unknown_image", f"labelled in {path.name}, not annotated") for name in strangers]
    labels = labels.reindex(table.index)
    if "fairface_age" in labels:
        labels["age_group"] = pd.array(labels["fairface_age"].map(_age_group).tolist(), dtype="str")
    if "fairface_race" in labels:
        skin = labels["fairface_race"].map(lambda race: SKIN_OF_RACE.get(race.lower()), na_action="ignore")
        labels["skin"] = pd.array(skin.tolist(), dtype="str")
    return table.join(labels), problems


def _age_group(text: object) -> str | None:
    """An age such as "20-29", "more than 70" or "34" => "young" or "old", split at 40 years by the lower bound."""
    number = re.search(r"[0-9]{1,3}", text) if isinstance(text, str) else None
    return age_group(None if number is None else int(number.group()))
