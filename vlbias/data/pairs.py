"""Pairs of pictures, each of one person or of two: what verification is measured on.

lfw.bin, agedb_30.bin, cfp_fp.bin, calfw.bin, cplfw.bin   InsightFace's files: encoded pictures and a list of answers
pairs.txt                                                 LFW's: "10 300", then "Name 1 2" and "Name 1 Other 2", beside
                                                          the people's folders or the folder of these; or the copy of
                                                          it as pairs.csv, "name,imagenum1,imagenum2,"
RFW's folder                                              txts/African/African_pairs.txt, data/African/m.01/...
pairs.csv                                                 your own: first,second,same and, as far as known,
                                                          person_1, person_2, group, fold
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from vlbias.arguments import checked_call
from vlbias.checkpoints import ForeignArray, read_plain_pickle
from vlbias.data.files import fields_of, inside_root, leave_out_links, linked, read_rows, read_text, refuse_link
from vlbias.data.table import Problem, Problems, check_tensor
from vlbias.errors import CheckpointError, ConfigError, DatasetError, LabelError
from vlbias.images import Pictures, decode_image, open_image, to_tensor
from vlbias.labels import label_text

__all__ = ["FacePairs", "load_pairs"]

NUM_FOLDS = 10

# RFW spells its folders so; each has 6,000 pairs.
RACES = ("African", "Asian", "Caucasian", "Indian")
#: Folders that LFW's archives unpack into, beside which lists of pairs lie.
_LFW_FOLDERS = ("lfw", "lfw_funneled", "lfw-funneled", "lfw-deepfunneled")
#: Where RFW's lists and pictures may lie below the folder that was named.
_RFW_FOLDERS = ("", "test", "RFW", "RFW/test", "images/test")
_YES, _NO = frozenset({"1", "true", "yes", "same"}), frozenset({"0", "false", "no", "different"})


@dataclass(frozen=True)
class FacePairs:
    """Pairs of pictures.

    Attributes:
        name: for tables.
        pictures: where they are; ``tensor(ids, size)``.
        ids: the pictures, each once.
        first, second: int64 (n,), numbers of the two pictures of each pair in ``ids``.
        is_same: bool (n,), whether they show one person.
        folds: int64 (n,), the part of the protocol each pair belongs to, 0, 1, ...
        groups: object (n,), the group of each pair; "all" where none is known.
        people: object (n, 2), who is shown; ``None`` where the file does not say.
        problems: lines that were left out, and why.

    Raises:
        DatasetError: no pair of one person, none of two, or a single fold.
    """

    name: str
    pictures: Pictures
    ids: tuple[str, ...]
    first: np.ndarray
    second: np.ndarray
    is_same: np.ndarray
    folds: np.ndarray
    groups: np.ndarray
    people: np.ndarray | None = None
    problems: list[Problem] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not self.is_same.any() or self.is_same.all():
            raise DatasetError(f"{self.name} needs pairs of one person and pairs of two; it has only one kind.")
        if len(np.unique(self.folds)) < 2:
            raise DatasetError(f"{self.name} has a single fold; a threshold is chosen on the others.")

    def __len__(self) -> int:
        return len(self.is_same)

    def with_groups(self, groups: Sequence[object]) -> FacePairs:
        """The pairs with a group each, for files that know none.

        Args:
            groups: one of each pair, in order; a missing one leaves its pair out.

        Raises:
            LabelError: another number of groups than pairs.
        """
        if len(groups) != len(self):
            raise LabelError(f"`groups` must hold one group for each of {len(self)} pairs; got {len(groups)}.")
        texts = np.array([label_text(group) for group in groups], dtype=object)
        kept = np.array([text is not None for text in texts], dtype=bool)
        columns = {name: getattr(self, name)[kept] for name in ("first", "second", "is_same", "folds")}
        people = None if self.people is None else self.people[kept]
        return replace(self, groups=texts[kept], people=people, **columns)


@checked_call
def load_pairs(
    path: str | os.PathLike[str],
    *,
    images: str | os.PathLike[str] | None = None,
    groups: str | os.PathLike[str] | None = None,
    follow_links: bool = False,
) -> FacePairs:
    """Read pairs of pictures; no picture is decoded, and no code of a ``.bin`` file is run.

    Args:
        path: a file of one of the kinds above, the folder of RFW, or one with LFW's ``pairs.txt``.
        images: the folder of the pictures of a list; ``None`` for the list's own.
        groups: a CSV file with a column ``group``: one row per pair, in order; or, with a column ``identity`` too, one
            row a person, where the file of pairs says who is shown. A pair of two groups is left out.
        follow_links: whether links below the folder of the pictures are gone along; otherwise their pairs are left out.

    Raises:
        DatasetError: nothing there that is known, or no pair can be used.
        UnsafeCheckpointError: a ``.bin`` file that asks for code to be run.
        LabelError: groups that do not fit the pairs.
    """
    path = Path(path)
    if (path / "pairs.txt").is_file():
        path = refuse_link(path / "pairs.txt", follow_links=follow_links)
    if path.is_dir():
        pairs = _of_rfw(path, follow_links)
    elif not path.is_file():
        raise DatasetError(f"{path} is not there. Give a .bin, a pairs.txt, a .csv, or the folder of RFW.")
    elif path.suffix == ".bin":
        pairs = _of_bin(path)
    else:
        folder = path.parent if images is None else Path(images)
        is_own = path.suffix.lower() == ".csv" and not read_text(path).lower().startswith("name,imagenum1")
        pairs = (_of_csv if is_own else _of_lfw)(path, folder, follow_links)
    return pairs if groups is None else _grouped(pairs, Path(groups))


# ---------------------------------------------------------------------------------------------------------------------
# pictures


class _EncodedPictures:
    """Pictures inside a file of pairs, decoded when they are asked for."""

    def __init__(self, name: str, encoded: Sequence[bytes]):
        self.name, self.encoded = name, encoded

    def tensor(self, items: Sequence[str], size: int) -> torch.Tensor:
        """Pictures by number => float32 (n, 3, size, size) in [-1, 1]."""
        check_tensor(len(items), size)
        pictures = [decode_image(self.encoded[int(item)], f"{self.name}, picture {item}") for item in items]
        return torch.cat([to_tensor(picture, size) for picture in pictures])


class _PictureFiles:
    """Pictures below a folder."""

    def __init__(self, root: Path):
        self.root = root

    def tensor(self, items: Sequence[str], size: int) -> torch.Tensor:
        """Pictures by path => float32 (n, 3, size, size) in [-1, 1]."""
        check_tensor(len(items), size)
        return torch.cat([to_tensor(open_image(self.root / item), size) for item in items])


# ---------------------------------------------------------------------------------------------------------------------
# kinds of files


def _of_bin(path: Path) -> FacePairs:
    """A pickle of (2n encoded pictures, n answers); pair i is of the pictures 2i and 2i + 1."""
    content = read_plain_pickle(path)
    stored, answers = map(_plain, content) if isinstance(content, list | tuple) and len(content) == 2 else ((), ())
    if not (isinstance(answers, list | tuple) and isinstance(stored, list | tuple)) or not answers:
        raise CheckpointError(f"{path} is not a file of pairs: expected 2n pictures and n answers. Fetch it again.")
    if len(stored) != 2 * len(answers):
        found = f"{len(stored)} and {len(answers)}"
        raise CheckpointError(f"{path} is not a file of pairs: expected 2n pictures and n answers, got {found}.")
    encoded = [_encoded(item) for item in stored]
    if any(item is None for item in encoded):
        raise CheckpointError(f"{path} contains pictures that are not encoded (JPEG or PNG); write them as such.")
    if not all(isinstance(answer, int) and answer in (0, 1) for answer in answers):
        raise CheckpointError(f"{path} contains an answer other than true and false.")
    n = len(answers)
    return FacePairs(
        path.stem,
        _EncodedPictures(path.name, [item for item in encoded if item is not None]),
        tuple(str(i) for i in range(2 * n)),
        np.arange(0, 2 * n, 2),
        np.arange(1, 2 * n, 2),
        np.array(answers, dtype=bool),
        _parts(n),
        np.full(n, "all", dtype=object),
    )


def _plain(value: object) -> object:
    return value.values.tolist() if isinstance(value, ForeignArray) else value


def _encoded(item: object) -> bytes | None:
    """A picture as the bytes of its file; ``None`` if it is none. Python 2 wrote bytes as text."""
    if isinstance(item, ForeignArray) and item.values.ndim == 1 and item.values.dtype == np.uint8:
        return item.values.tobytes()
    if isinstance(item, str):
        return item.encode("latin1") if max(item, default="") < "\u0100" else None
    return bytes(item) if isinstance(item, bytes | bytearray) else None


def _parts(n: int) -> np.ndarray:
    """Ten parts in the order of the file, as equal as they can be: the published files are laid out so."""
    return np.arange(n) * min(NUM_FOLDS, n) // n


@dataclass(frozen=True)
class _Row:
    files: tuple[str, str]
    people: tuple[str, str] | None
    is_same: bool
    fold: int | None = None
    group: str = "all"


def _assemble(name: str, root: Path, rows: Sequence[_Row], problems: list[Problem], follow_links: bool) -> FacePairs:
    links = set() if follow_links else linked(root, {file for row in rows for file in row.files})
    rows = [row for row in rows if not links.intersection(row.files)]
    problems += leave_out_links(links, root=root, num_left=len(rows))
    if not rows:
        raise DatasetError(f"{name} has no pair that can be used ({len(problems)} problems).")
    numbers = {file: i for i, file in enumerate(dict.fromkeys(file for row in rows for file in row.files))}
    known = all(row.people is not None for row in rows)
    folds = _parts(len(rows)) if any(row.fold is None for row in rows) else np.array([row.fold for row in rows])
    return FacePairs(
        name,
        _PictureFiles(root),
        tuple(numbers),
        np.array([numbers[row.files[0]] for row in rows]),
        np.array([numbers[row.files[1]] for row in rows]),
        np.array([row.is_same for row in rows], dtype=bool),
        folds.astype(np.int64),
        np.array([row.group for row in rows], dtype=object),
        np.array([row.people for row in rows], dtype=object).reshape(-1, 2) if known else None,
        problems,
    )


def _of_lfw(path: Path, folder: Path, follow_links: bool) -> FacePairs:
    lines = fields_of(read_text(path).replace(",", " "))
    prefix = _lfw_prefix(folder, [fields[0] for _, fields in lines if len(fields) in (3, 4)])
    rows, problems = _read_lines(path, folder, "all", prefix)
    return _assemble(path.stem, folder, rows, problems, follow_links)


def _lfw_prefix(folder: Path, people: Sequence[str]) -> str:
    """Where the people's folders lie: in the folder itself, or in one that an archive unpacks into, perhaps twice."""
    inner = [f"{name}/" for name in _LFW_FOLDERS] + [f"{name}/{name}/" for name in _LFW_FOLDERS]
    names = [name for name in dict.fromkeys(people[:1000]) if inside_root(name)]
    found = (prefix for prefix in ("", *inner) if any((folder / prefix / name).is_dir() for name in names))
    return next(found, "")


def _of_rfw(named: Path, follow_links: bool) -> FacePairs:
    """Four lists in LFW's form; the folder may be one that holds ``test/``."""
    root = next((named / part for part in _RFW_FOLDERS if (named / part / "txts").is_dir()), named)
    rows: list[_Row] = []
    problems: list[Problem] = []
    for race in RACES:
        place = root / "txts" / race / f"{race}_pairs.txt"
        if place.is_file():
            refuse_link(place, follow_links=follow_links, root=named)
            found, more = _read_lines(place, root, race, prefix=f"data/{race}/")
            rows += found
            problems += more
            if len(found) + len(more) != 6_000:
                problems.append(
                    Problem(
                        place.name, "other_count", f"{len(found) + len(more):,} pairs; the published list has 6,000"
                    )
                )
    if not rows:
        raise DatasetError(f"{root} has no txts/{RACES[0]}/{RACES[0]}_pairs.txt with pairs of pictures in data/.")
    return _assemble("rfw", root, rows, problems, follow_links)


def _read_lines(path: Path, root: Path, group: str, prefix: str = "") -> tuple[list[_Row], list[Problem]]:
    """Lines "Name 1 2" and "Name 1 Other 2"; a first line "folds pairs" says how they are laid out.

    The copy as CSV has commas in the place of spaces, empty cells, and a line of names.
    """
    rows: list[_Row] = []
    problems = Problems()
    is_csv = path.suffix.lower() == ".csv"
    text = read_text(path).replace(",", " ") if is_csv else read_text(path)
    lines = [(number, fields[:5]) for number, fields in fields_of(text)][is_csv:]
    header: list[int] = []
    if lines and len(lines[0][1]) <= 2 and all(re.fullmatch("[0-9]{1,6}", field) for field in lines[0][1]):
        header = [int(field) for field in lines.pop(0)[1]]
    for position, (number, fields) in enumerate(lines):
        where = f"{path.name}:{number}"
        people = (fields[0], fields[0] if len(fields) == 3 else fields[min(2, len(fields) - 1)])
        counts = [fields[i] for i in ((1, 2) if len(fields) == 3 else (1, 3)) if i < len(fields)]
        if len(fields) not in (3, 4) or not all(re.fullmatch("[0-9]{1,6}", count) for count in counts):
            detail = f"expected 'name 1 2' or 'name 1 other 2', got '{' '.join(fields)[:80]}'"
            problems.append(Problem(where, "malformed_line", detail))
            continue
        names = [f"{prefix}{who}/{who}_{int(count):04d}" for who, count in zip(people, counts, strict=True)]
        files = [_stored(root, name) for name in names]
        if None in files:
            problems.append(Problem(where, "missing_image", f"{names[files.index(None)]}.jpg is not there"))
        else:
            is_same = len(fields) == 3
            fold = _fold(position, len(lines), header)
            rows.append(_Row((str(files[0]), str(files[1])), people, is_same, fold, group))
    return rows, problems


def _fold(position: int, num_lines: int, header: list[int]) -> int:
    """The fold of a line. "10 300": of each fold 300 of one person, then 300 of two. "500": all of one, then of two."""
    if len(header) == 2 and header[1]:
        return position // (2 * header[1])
    if len(header) == 1 and header[0]:
        return position % header[0] * NUM_FOLDS // header[0]
    return position * NUM_FOLDS // num_lines


def _stored(root: Path, name: str) -> str | None:
    clean = inside_root(name)
    return next((f"{clean}{end}" for end in (".jpg", ".png") if clean and os.path.isfile(root / f"{clean}{end}")), None)


def _of_csv(path: Path, folder: Path, follow_links: bool) -> FacePairs:
    rows: list[_Row] = []
    problems = Problems()
    columns, found = read_rows(path)
    if missing := [name for name in ("first", "second", "same") if name not in columns]:
        raise DatasetError(f"{path} lacks the column '{missing[0]}'; pairs need first, second and same.")
    for number, raw in enumerate(found, start=2):
        row = {key: value.strip() for key, value in raw.items()}
        if detail := _wrong(row, folder):
            problems.append(Problem(f"{path.name}:{number}", "malformed_line", detail))
            continue
        people = (row.get("person_1", ""), row.get("person_2", ""))
        fold = int(row["fold"]) if row.get("fold") else None
        files = (str(inside_root(row["first"])), str(inside_root(row["second"])))
        is_same = row["same"].lower() in _YES
        rows.append(_Row(files, people if all(people) else None, is_same, fold, row.get("group") or "all"))
    return _assemble(path.stem, folder, rows, problems, follow_links)


def _wrong(row: dict[str, str], folder: Path) -> str:
    """What is wrong with a row of one's own list; empty if nothing is."""
    for column in ("first", "second"):
        clean = inside_root(row.get(column, ""))
        if clean is None or not os.path.isfile(folder / clean):
            return f"{column}: '{row.get(column, '')}' is not there"
    if row.get("same", "").lower() not in _YES | _NO:
        return f"same: '{row.get('same', '')}'; expected 1 or 0"
    if row.get("fold") and not re.fullmatch("[0-9]{1,4}", row["fold"]):
        return f"fold: '{row['fold']}'; expected a number"
    people = (row.get("person_1", ""), row.get("person_2", ""))
    if all(people) and (people[0] == people[1]) != (row["same"].lower() in _YES):
        return f"same: '{row['same']}', but the people are '{people[0]}' and '{people[1]}'"
    return ""


def _grouped(pairs: FacePairs, path: Path) -> FacePairs:
    columns, rows = read_rows(path)
    if "group" not in columns:
        raise LabelError(f"{path} lacks the column 'group'; its columns are: {', '.join(columns) or 'none'}.")
    if "identity" not in columns:
        return pairs.with_groups([row["group"] for row in rows])
    if pairs.people is None:
        raise ConfigError(
            f"{pairs.name} does not say who is shown; give {path.name} one row per pair, without 'identity'."
        )
    group_of = {label_text(row["identity"]): label_text(row["group"]) for row in rows}
    found = [(group_of.get(one), group_of.get(other)) for one, other in pairs.people]
    if not any(one and one == other for one, other in found):
        raise LabelError(f"{path} has no group for both people of any pair of {pairs.name}.")
    return pairs.with_groups([one if one == other else None for one, other in found])
