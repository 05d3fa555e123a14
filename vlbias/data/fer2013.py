"""FER2013 (Goodfellow et al., 2013): 48 x 48 grey pictures, in one CSV file or as pictures in folders.

fer2013.csv                emotion,pixels,Usage; or icml_face_data.csv, with the columns in another order
train/angry/...            test/angry/...: a copy in folders; Training_, PublicTest_ and PrivateTest_ of the names say
                           the official split
"""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from vlbias.data.expressions import split_counts
from vlbias.data.files import csv_rows, leave_out_links, list_images, refuse_link
from vlbias.data.people import compare_counts
from vlbias.data.table import FaceDataset, Problem, Problems
from vlbias.errors import DatasetError
from vlbias.files import open_plain

__all__ = ["FerDataset", "find_fer2013", "load_fer2013", "looks_like_fer2013"]

FER2013_LICENSE = "FER2013: found on the web for a contest; UNKNOWN terms beyond research"

CSV_FILES = ("fer2013.csv", "icml_face_data.csv")
SIZE_PX, MAX_FACES = 48, 100_000
_CODES = dict(zip("0123456", ("anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral"), strict=True))
_FOLDERS = dict(zip(("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral"), _CODES.values(), strict=True))
#: Copies spell some of them so.
_FOLDERS |= {"fearful": "fear", "disgusted": "disgust", "surprised": "surprise"}
#: Folders of splits; where they have a validation set, it is its copy's own.
_PARTS = {"train": "train", "validation": "val", "val": "val", "test": "test"}
_USAGES = {"Training": "train", "PublicTest": "val", "PrivateTest": "test"}
_NAME = re.compile(r"(Training|PublicTest|PrivateTest)_[0-9]+\.(jpe?g|png)", re.IGNORECASE)
_PUBLISHED = {"train images": 28_709, "val images": 3_589, "test images": 3_589}


@dataclass(frozen=True, repr=False, eq=False)
class FerDataset(FaceDataset):
    """Faces whose pixels stood in a CSV file, uint8 (rows, 48, 48); the column ``row`` says which."""

    pixels: np.ndarray | None = None

    def path(self, item: str) -> Path | None:
        """``None``: a picture has no file of its own."""
        self._require([item])
        return None

    def image(self, item: str) -> Image.Image:
        """One face, RGB of 48 x 48 pixels.

        Raises:
            UnknownNameError: no such id.
        """
        self._require([item])
        assert self.pixels is not None
        return Image.fromarray(self.pixels[int(self.table["row"].loc[item])]).convert("RGB")


def find_fer2013(root: Path) -> Path | None:
    """The CSV file in a folder of FER2013; ``None`` if it has none."""
    places = (folder / name for folder in (root, root / "fer2013") for name in CSV_FILES)
    return next((place for place in places if place.is_file()), None)


def looks_like_fer2013(names: list[str]) -> bool:
    """Whether most of these file names are those of the copy in folders."""
    return bool(names) and sum(_NAME.fullmatch(name) is not None for name in names) > len(names) / 2


def load_fer2013(root: str | os.PathLike[str], *, follow_links: bool = False) -> FaceDataset:
    """Read FER2013 from its CSV file, or from its copy in folders.

    Args:
        root: the folder with ``fer2013.csv`` or ``icml_face_data.csv``, or with ``train/angry/`` and so on.
        follow_links: whether links below the root are gone along; otherwise they are left out and reported.

    Returns:
        ``expression``; ``Training`` is train, ``PublicTest`` val and ``PrivateTest`` test. Where names of pictures in
        folders do not say it, the folders train and test do. Lines that cannot be used, and counts other than the
        published ones, stand in ``problems``.

    Raises:
        DatasetError: neither is there, the CSV file lacks a column, or nothing in it can be used.
    """
    root = Path(root)
    file = find_fer2013(root)
    if file is None:
        return _of_folders(root, follow_links)
    rows: list[tuple[str, str, str, str, int]] = []
    pixels: list[np.ndarray] = []
    problems = Problems()
    for number, row in _csv_rows(refuse_link(file, follow_links=follow_links, root=root)):
        picture, detail = _parse_row(row)
        if picture is None:
            problems.append(Problem(f"{file.name}:{number}", "malformed_line", detail))
            continue
        item = f"{number:05d}"
        rows.append((item, f"{item}.png", _USAGES[row["usage"]], _CODES[row["emotion"]], len(pixels)))
        pixels.append(picture)
        if len(rows) > MAX_FACES:
            raise DatasetError(f"{file} has more than {MAX_FACES:,} faces; FER2013 has 35,887.")
    if not rows:
        raise DatasetError(f"{file} has no line that can be used ({len(problems)} problems).")
    table = pd.DataFrame(rows, columns=["id", "file_name", "split", "expression", "row"]).set_index("id")
    problems += compare_counts(file.name, split_counts(table), _PUBLISHED)
    return FerDataset(
        "fer2013",
        table,
        attributes=["expression"],
        problems=problems,
        license=FER2013_LICENSE,
        pixels=np.stack(pixels),
    )


def _csv_rows(file: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Line number and row, by the names of the columns in lower case."""
    try:
        with open_plain(file) as plain, io.TextIOWrapper(plain, encoding="utf-8-sig", newline="") as lines:
            rows = csv_rows(file, lines)
            header = [name.strip().lower() for name in next(rows, (0, []))[1]]
            if missing := {"emotion", "pixels", "usage"} - set(header):
                found = ", ".join(header)
                raise DatasetError(f"{file} lacks the column {', '.join(sorted(missing))}; it has {found:.300}.")
            for number, fields in rows:
                yield number, {name: value.strip() for name, value in zip(header, fields, strict=False)}
    except (UnicodeDecodeError, csv.Error, OSError) as error:
        raise DatasetError(f"{file} cannot be read ({error}).") from error


def _parse_row(row: dict[str, str]) -> tuple[np.ndarray | None, str]:
    """Pixels of a row, or what is wrong with it."""
    if row.get("emotion") not in _CODES:
        return None, f"emotion is '{row.get('emotion', '')[:20]}'; expected 0..6"
    if row.get("usage") not in _USAGES:
        return None, f"Usage is '{row.get('usage', '')[:20]}'; expected {', '.join(_USAGES)}"
    values = row.get("pixels", "").split()
    if len(values) != SIZE_PX**2 or not all(value.isascii() and value.isdecimal() for value in values):
        return None, f"{len(values)} pixels; expected {SIZE_PX**2:,} whole numbers"
    picture = np.array(values, dtype=np.int64).reshape(SIZE_PX, SIZE_PX)
    if picture.max() > 255:
        return None, f"a pixel is {picture.max()}; expected 0..255"
    return picture.astype(np.uint8), ""


def _of_folders(root: Path, follow_links: bool) -> FaceDataset:
    links: list[str] = []
    rows: list[tuple[str, str, str]] = []
    problems: list[Problem] = []
    named = True
    for name in list_images(root, follow_links=follow_links, left_out=links) if root.is_dir() else []:
        *folders, file = name.split("/")
        part, word = folders[-2:] if len(folders) > 1 else ("", "")
        match = _NAME.fullmatch(file)
        if word.lower() not in _FOLDERS or part.lower() not in _PARTS:
            problems.append(Problem(name, "malformed_name", "expected train/angry/..., test/angry/... and so on"))
            continue
        named &= match is not None
        usages = {usage.lower(): split for usage, split in _USAGES.items()}
        split = _PARTS[part.lower()] if match is None else usages[match[1].lower()]
        rows.append((name, split, _FOLDERS[word.lower()]))
    if not rows:
        raise DatasetError(f"{root} has neither {' nor '.join(CSV_FILES)} nor pictures such as train/angry/1.jpg.")
    problems += leave_out_links(links, root=root, num_left=len(rows))
    table = pd.DataFrame(rows, columns=["file_name", "split", "expression"])
    table.index = pd.Index(table["file_name"].tolist(), name="id")
    both = {"train images": 28_709, "test images": 7_178}  # the two tests in one folder
    problems += compare_counts("train, test", split_counts(table), _PUBLISHED if named else both)
    return FaceDataset("fer2013", table, root=root, problems=problems, license=FER2013_LICENSE)
