"""Facial expressions in the layouts of their publishers: AffectNet, RAF-DB and CAFE; FER2013 has a file of its own.

AffectNet   train_set/images/0.jpg, train_set/annotations/0_exp.npy; val_set likewise
RAF-DB      EmoLabel/list_patition_label.txt ("train_00001.jpg 5"), Image/aligned/train_00001_aligned.jpg;
            or train/5/train_00001_aligned.jpg
CAFE        9977-angry_F-AA-01.jpg: number, expression, sex, race, child

Every set is held to its official split, and its expressions have the same words (:data:`EXPRESSION_WORDS`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from vlbias.data.files import (
    DEFAULT_MAX_MISSING,
    drop_missing,
    fields_of,
    leave_out_links,
    linked,
    list_images,
    read_text,
    refuse_link,
)
from vlbias.data.people import compare_counts, split_of_person
from vlbias.data.table import FaceDataset, Problem, Problems
from vlbias.errors import DatasetError

__all__ = [
    "EXPRESSION_WORDS",
    "find_affectnet",
    "find_rafdb",
    "load_affectnet",
    "load_cafe",
    "load_rafdb",
    "looks_like_cafe",
    "looks_like_rafdb",
    "parse_rafdb_labels",
    "split_counts",
]

EXPRESSION_WORDS = ("neutral", "happiness", "sadness", "surprise", "fear", "disgust", "anger", "contempt")

AFFECTNET_LICENSE = "AffectNet: research only, by a signed agreement; the photographs belong to their owners"
RAFDB_LICENSE = "RAF-DB: non-commercial research only, by an agreement; the photographs belong to their owners"
CAFE_LICENSE = "CAFE: research by authorized investigators of Databrary; no picture may be published"


def split_counts(table: pd.DataFrame) -> dict[str, int]:
    """Images of each split."""
    return {f"{split} images": int((table["split"] == split).sum()) for split in ("train", "val", "test")}


# ---------------------------------------------------------------------------------------------------------------------
# AffectNet

#: Code of ``_exp.npy`` => word. 8 (none), 9 (uncertain) and 10 (no face) of the larger release are no expressions.
_AFFECTNET_CODES = dict(enumerate(EXPRESSION_WORDS))
#: Papers test on the validation set, as the test set was never handed out.
_AFFECTNET_SPLITS = {"train_set": "train", "val_set": "test"}
_AFFECTNET_PUBLISHED = {"train images": 287_651, "test images": 3_999}


def find_affectnet(root: Path) -> Path | None:
    """The folder with ``train_set`` or ``val_set`` in a folder of AffectNet; ``None`` if it is none."""
    folders = (root, root / "AffectNet", root / "affectnet")
    return next((f for f in folders if any((f / s / "annotations").is_dir() for s in _AFFECTNET_SPLITS)), None)


def load_affectnet(root: str | os.PathLike[str], *, follow_links: bool = False) -> FaceDataset:
    """Read AffectNet as it is handed out in ``train_set`` and ``val_set``; no picture is opened.

    Args:
        root: the folder with ``train_set/`` and ``val_set/``, or one that holds it as ``AffectNet/``.
        follow_links: whether links below the root are gone along; otherwise they are left out and reported.

    Returns:
        ``expression``. The official validation set is ``test``: the test set was never handed out. Pictures without an
        annotation, annotations that cannot be used, and counts other than the published ones stand in ``problems``.

    Raises:
        DatasetError: no such folder, or no picture with an annotation.
    """
    folder = find_affectnet(Path(root))
    if folder is None:
        raise DatasetError(f"{root} has no train_set/annotations/. Give the folder of AffectNet's two sets.")
    for part in _AFFECTNET_SPLITS:
        refuse_link(folder / part / "annotations", follow_links=follow_links, root=Path(root))
    links: list[str] = []
    rows, problems = [], []
    for name in list_images(folder, follow_links=follow_links, left_out=links):
        part, _, rest = name.partition("/")
        if part not in _AFFECTNET_SPLITS or not rest.startswith("images/"):
            continue
        label = folder / part / "annotations" / f"{PurePosixPath(name).stem}_exp.npy"
        expression = _read_code(label, follow_links=follow_links)
        if isinstance(expression, Problem):
            problems.append(Problem(name, expression.code, expression.detail))
        else:
            rows.append((name, _AFFECTNET_SPLITS[part], expression))
    problems += leave_out_links(links, root=folder, num_left=len(rows) + len(problems))
    if not rows:
        raise DatasetError(f"{folder} has no picture with an annotation, such as train_set/annotations/0_exp.npy.")
    table = pd.DataFrame(rows, columns=["file_name", "split", "expression"])
    table.index = pd.Index(table["file_name"].tolist(), name="id")
    problems += compare_counts("train_set, val_set", split_counts(table), _AFFECTNET_PUBLISHED)
    return FaceDataset("affectnet", table, root=folder, problems=problems, license=AFFECTNET_LICENSE)


def _read_code(path: Path, *, follow_links: bool) -> str | Problem:
    """The expression in a file of NumPy; a file that would need unpickling is refused."""
    if path.is_symlink() and not follow_links:
        return Problem(path.name, "link", f"{path.name} is a link")
    if not path.is_file():
        return Problem(path.name, "no_label", f"{path.name} is missing")
    try:
        with path.open("rb") as file:
            value = np.lib.format.read_array(file, allow_pickle=False, max_header_size=1000)
        code = _whole(str(value.item()))
    except Exception as error:  # a damaged header trips NumPy, the tokenizer of Python or its parser
        return Problem(path.name, "malformed_line", f"{path.name} has no number ({str(error)[:80]})")
    if code not in _AFFECTNET_CODES:
        return Problem(path.name, "label_out_of_range", f"{path.name} is {code}; expressions are 0..7")
    return _AFFECTNET_CODES[code]


def _whole(text: str) -> int:
    """A whole number, which some copies have as a decimal one."""
    number = float(text)
    if number != int(number):
        raise ValueError(f"{text} is no whole number")
    return int(number)


# ---------------------------------------------------------------------------------------------------------------------
# RAF-DB

#: The publishers' spelling, and that of copies which correct it.
RAFDB_LIST = "EmoLabel/list_patition_label.txt"
_RAFDB_LISTS = (RAFDB_LIST, "EmoLabel/list_partition_label.txt")
_RAFDB_CODES = dict(
    zip("1234567", ("surprise", "fear", "disgust", "happiness", "sadness", "anger", "neutral"), strict=True)
)
_RAFDB_PUBLISHED = {"train images": 12_271, "test images": 3_068}
#: Lines behind the five landmarks of ``Annotation/manual``: column, and the word of each code.
_RAFDB_ATTRIBUTES: tuple[tuple[str, Mapping[str, str | None]], ...] = (
    ("gender", {"0": "male", "1": "female", "2": None}),
    ("race", {"0": "Caucasian", "1": "African-American", "2": "Asian"}),
    ("age_range", {"0": "0-3", "1": "4-19", "2": "20-39", "3": "40-69", "4": "70+"}),
)
_RAFDB_NAME = re.compile(r"(train|test)_[0-9]+\.jpg")
#: A copy has a folder for each label in the place of a list: train/5/train_00001_aligned.jpg.
_RAFDB_ALIGNED = re.compile(r"((?:train|test)_[0-9]+)_aligned\.jpg")


def find_rafdb(root: Path) -> Path | None:
    """The folder with ``EmoLabel`` in a folder of RAF-DB; ``None`` if it is none."""
    places = (root / part for part in ("", "basic", "RAF-DB/basic", "RAF-DB"))
    return next((place for place in places if _rafdb_list(place) is not None), None)


def _rafdb_list(folder: Path) -> Path | None:
    return next((folder / name for name in _RAFDB_LISTS if (folder / name).is_file()), None)


def looks_like_rafdb(names: list[str]) -> bool:
    """Whether most of these file names are those of RAF-DB's aligned pictures."""
    return bool(names) and sum(_RAFDB_ALIGNED.fullmatch(name) is not None for name in names) > len(names) / 2


def parse_rafdb_labels(text: str, file: str = RAFDB_LIST) -> tuple[dict[str, str], list[Problem]]:
    """Picture => expression; lines that cannot be used are reported.

    Example:
        >>> labels, problems = parse_rafdb_labels("train_00001.jpg 5\\ntest_0001.jpg 9\\n")
        >>> labels, problems[0].detail
        ({'train_00001.jpg': 'sadness'}, "'test_0001.jpg' has the label 9; expected 1..7")
    """
    labels: dict[str, str] = {}
    problems = Problems()
    for number, fields in fields_of(text):
        place, code = f"{file}:{number}", "malformed_line"
        if len(fields) != 2 or not _RAFDB_NAME.fullmatch(fields[0]):
            detail = f"expected 'train_00001.jpg label', got '{' '.join(fields)[:80]}'"
        elif fields[1] not in _RAFDB_CODES:
            code, detail = "label_out_of_range", f"'{fields[0]}' has the label {fields[1][:20]}; expected 1..7"
        elif fields[0] in labels:
            detail = f"'{fields[0]}' appears twice"
        else:
            labels[fields[0]] = _RAFDB_CODES[fields[1]]
            continue
        problems.append(Problem(place, code, detail))
    return labels, problems


def load_rafdb(
    root: str | os.PathLike[str], *, max_missing: float = DEFAULT_MAX_MISSING, follow_links: bool = False
) -> FaceDataset:
    """Read RAF-DB's seven basic expressions; no picture is opened.

    Args:
        root: the folder with ``EmoLabel/`` and ``Image/aligned/``, or one that holds it as ``basic/``; or a copy with a
            folder for each label, such as ``train/5/train_00001_aligned.jpg``.
        max_missing: share of pictures that may be missing, 0..1; the missing ones are left out and reported.
        follow_links: whether links below the root are gone along; otherwise they are left out and reported.

    Returns:
        ``expression``, the split that the names say, and, where ``Annotation/manual`` is there, ``gender``, ``race``
        and ``age_range`` as annotated (``unsure`` is missing). Lines that cannot be used, and counts other than the
        published ones, stand in ``problems``.

    Raises:
        DatasetError: no list, no line of it can be used, or too many pictures are missing.
    """
    folder = find_rafdb(Path(root))
    if folder is None:
        return _rafdb_of_folders(Path(root), follow_links)
    place = _rafdb_list(folder)
    assert place is not None
    text = read_text(refuse_link(place, follow_links=follow_links, root=Path(root)))
    name_of_list = place.relative_to(folder).as_posix()
    labels, problems = parse_rafdb_labels(text, name_of_list)
    if not labels:
        raise DatasetError(f"{place} has no line that can be used ({len(problems)} problems).")
    # the archive may have been unpacked into a folder of its own name
    aligned = "Image/aligned/aligned" if (folder / "Image/aligned/aligned").is_dir() else "Image/aligned"
    files = [f"{aligned}/{name.removesuffix('.jpg')}_aligned.jpg" for name in labels]
    links = set() if follow_links else linked(folder, files)
    problems += leave_out_links(links, root=folder, num_left=len(files) - len(links))
    kept = [i for i, name in enumerate(files) if name not in links]
    is_there = [os.path.isfile(folder / files[i]) for i in kept]
    problems += drop_missing([files[i] for i in kept], is_there, max_missing=max_missing, root=folder)
    kept = [i for i, there in zip(kept, is_there, strict=True) if there]
    names = [list(labels)[i] for i in kept]
    table = pd.DataFrame({"file_name": [files[i] for i in kept]}, index=pd.Index(names, name="id"))
    table["split"] = [name.partition("_")[0] for name in names]
    table["expression"] = [labels[name] for name in names]
    if (folder / "Annotation" / "manual").is_dir():
        refuse_link(folder / "Annotation" / "manual", follow_links=follow_links, root=folder)
        attributes, more = _rafdb_attributes(folder, names, follow_links=follow_links)
        problems += more
        for column, values in attributes.items():
            table[column] = pd.array(values, dtype="str")
    problems += compare_counts(name_of_list, split_counts(table), _RAFDB_PUBLISHED)
    return FaceDataset("rafdb", table, root=folder, problems=problems, license=RAFDB_LICENSE)


def _rafdb_of_folders(root: Path, follow_links: bool) -> FaceDataset:
    """The copy with a folder for each label; its lists, if any, say the same."""
    links: list[str] = []
    rows: dict[str, tuple[str, str, str]] = {}
    problems: list[Problem] = []
    for path in list_images(root, follow_links=follow_links, left_out=links) if root.is_dir() else []:
        label = PurePosixPath(path).parent.name
        match = _RAFDB_ALIGNED.fullmatch(PurePosixPath(path).name)
        if match is None:
            problems.append(Problem(path, "malformed_name", "expected a name such as train_00001_aligned.jpg"))
        elif label not in _RAFDB_CODES:
            problems.append(Problem(path, "label_out_of_range", f"stands in '{label}'; expected a folder 1..7"))
        elif (name := f"{match[1]}.jpg") in rows:
            problems.append(Problem(path, "duplicate_name", f"{name} is {rows[name][0]} as well"))
        else:
            rows[name] = (path, name.partition("_")[0], _RAFDB_CODES[label])
    problems += leave_out_links(links, root=root, num_left=len(rows) + len(problems))
    if not rows:
        raise DatasetError(
            f"{root} has neither {RAFDB_LIST} nor pictures such as train/5/train_00001_aligned.jpg. Give the folder "
            "`basic` of RAF-DB."
        )
    table = pd.DataFrame(list(rows.values()), columns=["file_name", "split", "expression"])
    table.index = pd.Index(list(rows), name="id")
    problems += compare_counts("train, test", split_counts(table), _RAFDB_PUBLISHED)
    return FaceDataset("rafdb", table, root=root, problems=problems, license=RAFDB_LICENSE)


def _rafdb_attributes(
    folder: Path, names: list[str], *, follow_links: bool
) -> tuple[dict[str, list[str | None]], list[Problem]]:
    """Column => value of each picture, from the last three of the eight lines of its annotation."""
    values: dict[str, list[str | None]] = {column: [] for column, _ in _RAFDB_ATTRIBUTES}
    problems: list[Problem] = []
    for name in names:
        file = f"Annotation/manual/{name.removesuffix('.jpg')}_manu_attri.txt"
        codes: list[str] = []
        try:
            lines = list(fields_of(read_text(refuse_link(folder / file, follow_links=follow_links, root=folder))))
            codes = [fields[0] for _, fields in lines[5:8] if len(fields) == 1]
            is_known = len(lines) == 8 and len(codes) == 3
            is_known &= all(code in words for code, (_, words) in zip(codes, _RAFDB_ATTRIBUTES, strict=False))
            detail = "expected five landmarks, then gender 0..2, race 0..2 and age 0..4"
        except DatasetError as error:
            is_known, detail = False, str(error)
        if not is_known:
            problems.append(Problem(file, "malformed_line", detail))
        for place, (column, words) in enumerate(_RAFDB_ATTRIBUTES):
            values[column].append(words[codes[place]] if is_known else None)
    return values, problems


# ---------------------------------------------------------------------------------------------------------------------
# CAFE

_CAFE_NAME = re.compile(r"([0-9]+)-([a-z]+)_([FM])-([A-Z]{2})-([0-9]+)\.jpe?g", re.IGNORECASE)
#: How an expression begins in a file name; what follows says how the mouth is.
_CAFE_EXPRESSIONS = {
    "angry": "anger",
    "disgust": "disgust",
    "fear": "fear",
    "happy": "happiness",
    "neutral": "neutral",
    "sad": "sadness",
    "surprise": "surprise",
}
#: Codes whose words public code shows; what the others stand for is not, so they stay codes.
_CAFE_RACES = {"AA": "African American", "EA": "European American"}
_CAFE_PUBLISHED = {"images": 1_192, "children": 154}


def looks_like_cafe(names: list[str]) -> bool:
    """Whether most of these file names are CAFE's."""
    return bool(names) and sum(_CAFE_NAME.fullmatch(name) is not None for name in names) > len(names) / 2


def load_cafe(root: str | os.PathLike[str], *, follow_links: bool = False) -> FaceDataset:
    """Read the Child Affective Facial Expression set by its file names; no picture is opened.

    Args:
        root: the folder of photographs; sub-folders, such as ``sessions/``, are read too.
        follow_links: whether links below the root are gone along; otherwise they are left out and reported.

    Returns:
        ``expression``, ``gender``, ``race`` and ``person``, the child. ``race`` is a word where the code's meaning is
        public and the code itself otherwise. There is no official split: a tenth of the children is val and a tenth is
        test, by a hash. Names that cannot be read and counts other than the published ones stand in ``problems``.

    Raises:
        DatasetError: no folder, or no such name in it.
    """
    root = Path(root)
    if not root.is_dir():
        raise DatasetError(f"{root} is not a folder. Give the folder of CAFE's photographs.")
    links: list[str] = []
    rows: dict[str, tuple[str, ...]] = {}
    problems: list[Problem] = []
    for name in list_images(root, follow_links=follow_links, left_out=links):
        row = _parse_cafe_name(name.rsplit("/", 1)[-1])
        if isinstance(row, str):
            problems.append(Problem(name, "malformed_name", row))
        else:
            rows[name] = row
    problems += leave_out_links(links, root=root, num_left=len(rows) + len(problems))
    if not rows:
        raise DatasetError(f"{root} has no photograph named as in CAFE, such as 9977-angry_F-AA-01.jpg.")
    columns = ["split", "expression", "gender", "race", "person"]
    table = pd.DataFrame(list(rows.values()), columns=columns, index=pd.Index(list(rows), name="id"))
    table.insert(0, "file_name", list(rows))
    problems += compare_counts(
        "file names", {"images": len(table), "children": table["person"].nunique()}, _CAFE_PUBLISHED
    )
    return FaceDataset(
        "cafe",
        table,
        root=root,
        attributes=["expression", "gender", "race", "person"],
        problems=problems,
        license=CAFE_LICENSE,
        descriptions={"race": "as published; a code of two letters where what it stands for is not public"},
    )


def _parse_cafe_name(name: str) -> tuple[str, ...] | str:
    """split, expression, gender, race and child of a file name, or what is wrong with it."""
    match = _CAFE_NAME.fullmatch(name)
    if match is None:
        return "expected number-expression_sex-race-child.jpg"
    word, gender, race = match[2].lower(), match[3].upper(), match[4].upper()
    expression = next((known for start, known in _CAFE_EXPRESSIONS.items() if word.startswith(start)), None)
    if expression is None:
        return f"'{match[2]}' is not an expression; expected one that begins with {', '.join(_CAFE_EXPRESSIONS)}"
    child = f"{gender}-{race}-{match[5]}"
    return (
        split_of_person(child),
        expression,
        {"F": "female", "M": "male"}[gender],
        _CAFE_RACES.get(race, race),
        child,
    )
