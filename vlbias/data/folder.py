"""Folders of pictures as Hugging Face `datasets` reads them ("imagefolder"): a metadata file, or one folder per class.

A metadata file (``metadata.csv``, ``.jsonl`` or ``.parquet``) has a column ``file_name`` relative to its own folder and
a column for each label. Without one, the folder that a picture stands in is its ``label``. The balanced datasets that
the pipeline writes are folders of this kind.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Sequence
from functools import cache
from pathlib import Path, PurePosixPath

import pandas as pd

from vlbias.arguments import checked_call
from vlbias.data.files import (
    DEFAULT_MAX_MISSING,
    drop_missing,
    inside_root,
    leave_out_links,
    linked,
    list_pictures,
    refuse_link,
)
from vlbias.data.metadata import METADATA_FILES, SCHEMA_FILE, is_label_column, misread_words, read_metadata
from vlbias.data.table import FaceDataset, Problem, hash_split, is_nameless, label_columns
from vlbias.data.twins import same_bytes
from vlbias.errors import ConfigError, DatasetError, LabelError, unknown
from vlbias.images import IMAGE_SUFFIXES
from vlbias.labels import label_text, label_texts

__all__ = ["check_unsplit", "load_folder", "split_of_name", "split_word"]

#: Words for a split, in a column or as a folder's name; the same that `datasets` knows.
SPLIT_WORDS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}
# `datasets` also finds a word at the beginning or the end of a name, or between two of these signs: "my-test_2".
_IN_NAME = re.compile(rf"(?:.*[-._ 0-9])?({'|'.join(sorted(SPLIT_WORDS, key=len, reverse=True))})(?:[-._ 0-9].*)?")

#: What spreadsheets put between cells in the place of commas.
_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}
#: Endings of files that may hold labels.
_TABLES = {".csv", ".tsv", ".json", ".jsonl", ".parquet", ".xlsx"}


@checked_call
def load_folder(
    root: str | os.PathLike[str],
    *,
    attributes: Sequence[str] | None = None,
    unsplit: str = "hash",
    person: str | None = None,
    max_missing: float = DEFAULT_MAX_MISSING,
    follow_links: bool = False,
) -> FaceDataset:
    """Read an imagefolder; no picture is opened.

    Args:
        root: the folder.
        attributes: columns that are labels; ``None`` for all that are neither provenance nor scores.
        unsplit: split of pictures that neither a ``split`` column nor a folder's name assigns: ``"hash"`` for a tenth
            test and a tenth val by :func:`hash_split`, or the name of one split. Equal files go to one split.
        person: column that says who is shown; with ``unsplit="hash"`` all pictures of a person go to one split.
        max_missing: share of pictures named in the metadata that may be missing on disk, 0..1.
        follow_links: whether links below the root are gone along; otherwise they are left out and reported.

    Raises:
        DatasetError: no picture; metadata that cannot be read, lacks ``file_name``, names a picture twice or one
            outside its folder; too many missing pictures.
        LabelError: a split of an unknown name.
        ConfigError: an option out of range. UnknownNameError: no such column.
    """
    check_unsplit(unsplit)
    root = Path(root)
    if not root.is_dir():
        raise DatasetError(f"{root} is not a folder.")
    links: list[str] = []
    pictures = list_pictures(root, follow_links=follow_links, left_out=links)
    metadata = _find_metadata(root, pictures)
    for path in metadata:
        for file in (path, path.with_name(SCHEMA_FILE)):
            refuse_link(file, follow_links=follow_links)
    if metadata:
        table, problems = _read_labelled(root, metadata, pictures, max_missing, follow_links=follow_links)
    elif pictures or links:
        problems = leave_out_links(links, root=root, num_left=len(pictures))
        table, more = _read_class_folders(pictures)
        problems += [*more, *_unread_tables(root)]
    else:
        raise DatasetError(f"{root} has neither a picture nor a {METADATA_FILES[0]}. Give the folder of a dataset.")
    for name in ([] if person is None else [person]) + list(attributes or ()):
        if name not in table.columns:
            raise unknown("attribute", name, label_columns(table), where=str(root))
    table["split"] = _splits(table, unsplit, root, person)
    table.index = pd.Index(table["file_name"].tolist(), name="id")
    # file_name and split first, the rest as it stood
    table = table[["file_name", "split", *(column for column in table if column not in ("file_name", "split"))]]
    found = [column for column in label_columns(table) if is_label_column(table[column])]
    labels = found if attributes is None else list(attributes)
    problems += [
        Problem(metadata[0].name, "no_label_column", f"'{column}' {why}; it is kept, but is not a label")
        for column in [*label_columns(table), *filter(is_nameless, map(str, table.columns))]
        if metadata and (why := _why_no_label(table[column]))
    ]
    return FaceDataset(root.resolve().name, table, root=root, attributes=labels, problems=problems)


def _unread_tables(root: Path) -> list[Problem]:
    """Tables beside pictures that have no metadata file: somebody may take their columns for labels."""
    names = sorted(path.name for path in root.iterdir() if path.suffix.lower() in _TABLES and path.name[0] != ".")
    detail = f"labels of pictures are read from {', '.join(METADATA_FILES)}, not from this table"
    return [Problem(name, "table_not_read", detail) for name in names]


def check_unsplit(unsplit: str) -> None:
    """Refuse a word that says no split of pictures that have none.

    Raises:
        ConfigError: what it may be.
    """
    if unsplit != "hash" and unsplit not in ("train", "val", "test"):
        raise ConfigError(f"`unsplit` must be 'hash', 'train', 'val' or 'test'; got '{unsplit}'.")


def _find_metadata(root: Path, pictures: list[str]) -> list[Path]:
    """Metadata files in the root and in every folder that leads to a picture."""
    if (root / SCHEMA_FILE).is_file() and (root / METADATA_FILES[0]).is_file():
        return [root / METADATA_FILES[0]]  # ours: what lies in the folders of the splits says the same
    folders = {PurePosixPath(".")}
    for parent in {name.rpartition("/")[0] for name in pictures}:
        folders.update((PurePosixPath(parent), *PurePosixPath(parent).parents))
    found = [root / folder / name for folder in sorted(folders) for name in METADATA_FILES]
    found = [path for path in found if path.is_file()]
    kinds = sorted({path.suffix for path in found})
    if len(kinds) > 1:
        raise DatasetError(f"{root} contains metadata files of several kinds ({', '.join(kinds)}). Keep one kind.")
    return found


def _read_labelled(
    root: Path, metadata: list[Path], pictures: list[str], max_missing: float, *, follow_links: bool
) -> tuple[pd.DataFrame, list[Problem]]:
    parts: list[pd.DataFrame] = []
    problems: list[Problem] = []
    on_disk, described = set(pictures), set[str]()
    for path in metadata:
        part = read_metadata(path)
        place = path.relative_to(root).as_posix()
        problems += [Problem(place, code, detail) for code, detail in misread_words(path, part)]
        part["file_name"] = found = _file_names(path, part, PurePosixPath(place).parent, on_disk)
        # A file further up speaks first: what stands in the folder of a split may repeat it for `datasets`.
        new = [name not in described for name in found]
        if any(new):
            parts.append(part if all(new) else part[new])
        described.update(found)
    if not parts:
        raise DatasetError(f"{metadata[0]} has no row.")
    table = parts[0].reset_index(drop=True) if len(parts) == 1 else pd.concat(parts, ignore_index=True)
    names = table["file_name"].tolist()
    unlisted = {name for name in set(names) - on_disk if os.path.lexists(f"{root}/{name}")}
    links = set() if follow_links else linked(root, unlisted)
    problems += leave_out_links(links, root=root, num_left=len(names) - len(links))
    if links:
        table = table[~table["file_name"].isin(links)].reset_index(drop=True)
        names = table["file_name"].tolist()
    is_there = [name in on_disk or (name in unlisted and os.path.isfile(root / name)) for name in names]
    problems += drop_missing(names, is_there, max_missing=max_missing, root=root)
    unlabelled = [name for name in pictures if name not in described]
    if unlabelled:
        others = f" (and {len(unlabelled) - 1} more)" if len(unlabelled) > 1 else ""
        problems.append(Problem(unlabelled[0], "no_label", f"a picture{others} without a row in the metadata"))
    return (table if all(is_there) else table[is_there].reset_index(drop=True)), problems


def _file_names(path: Path, table: pd.DataFrame, folder: PurePosixPath, on_disk: set[str]) -> list[str]:
    """The names in a metadata file as clean paths below the root; the column they stand in leaves the table."""
    column = _file_column(path, table)
    prefix = "" if folder == PurePosixPath(".") else f"{folder}/"
    composed = {unicodedata.normalize("NFC", name): name for name in on_disk if not name.isascii()}
    first_row: dict[str, int] = {}
    for row, name in enumerate(table[column].tolist(), start=1):
        where = f"{path}, row {row}"
        if not isinstance(name, str):
            said = "no file name" if pd.isna(name) else f"{name} is no file name, such as {name}.jpg,"
            raise DatasetError(f"{where}: {said} in column '{column}'.")
        clean = prefix + name if prefix + name in on_disk else inside_root(name, folder)
        if clean is not None and clean not in on_disk:  # composed and decomposed letters: one name in two spellings
            clean = composed.get(unicodedata.normalize("NFC", clean), clean)
        if clean is None:
            raise DatasetError(f"{where}: '{name}' leaves the folder of its metadata file. Use names inside it.")
        if clean in first_row:
            raise DatasetError(f"{where}: '{name}' appears twice, first in row {first_row[clean]}. Keep one.")
        first_row[clean] = row
    if column != "file_name":
        del table[column]
    return list(first_row)


def _file_column(path: Path, table: pd.DataFrame) -> str:
    if "file_name" in table.columns:
        return "file_name"
    others = [column for column in table.columns if column.endswith("_file_name")]
    if len(others) == 1:
        return others[0]
    columns = ", ".join(map(str, table.columns)) or "none"
    sign = next((name for char, name in _SEPARATORS.items() if len(table.columns) == 1 and char in columns), None)
    remedy = f" Separate its cells by commas, not by {sign}." if sign else ""
    raise DatasetError(f"{path} lacks the column 'file_name'; its columns are: {columns}.{remedy}")


def _why_no_label(column: pd.Series) -> str | None:
    if is_nameless(str(column.name)):
        return "has no name of its own"
    return None if is_label_column(column) else "has lists or objects"


def _read_class_folders(pictures: list[str]) -> tuple[pd.DataFrame, list[Problem]]:
    """``train/smiling/1.png`` or ``smiling/1.png``: the folder is the label, as for `datasets`.

    There are labels only if all pictures stand equally deep, in folders of several names. Where folders are named after
    splits, pictures outside of them are left out.
    """
    problems = []
    inside = [name for name in pictures if _split_of_folders(name.rpartition("/")[0])]
    if inside and len(inside) < len(pictures):
        kept = set(inside)
        problems = [
            Problem(name, "no_split", "outside of the folders of the splits") for name in pictures if name not in kept
        ]
        pictures = inside
    folders = [name.rpartition("/")[0] for name in pictures]
    labels = {folder.rpartition("/")[2] for folder in folders}
    depths = {name.count("/") for name in pictures}
    table = pd.DataFrame({"file_name": pictures})
    if len(labels) > 1 and len(depths) == 1 and not all(split_of_name(label) for label in labels):
        table["label"] = pd.Series([label_text(folder.rpartition("/")[2]) for folder in folders], dtype="str")
    readable = [os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES for name in pictures]
    problems += [
        Problem(name, "unreadable_image", "a kind of picture that is not read; save it as PNG or JPEG")
        for name, is_readable in zip(pictures, readable, strict=True)
        if not is_readable
    ]
    if not any(readable):
        raise DatasetError(f"none of its pictures is of a kind that can be read ({', '.join(sorted(IMAGE_SUFFIXES))}).")
    return table[readable].reset_index(drop=True), problems


def split_word(text: str | None, place: object, item: str) -> str | None:
    """The split that a label says; ``None`` for no label.

    Raises:
        LabelError: it is no split; ``place`` and ``item`` say whose.
    """
    if text is None:
        return None
    split = SPLIT_WORDS.get(text.strip().lower())
    if split is None:
        raise LabelError(f"{place}: '{item}' has the split '{text}'; expected {', '.join(sorted(SPLIT_WORDS))}.")
    return split


@cache
def split_of_name(name: str) -> str | None:
    """The split that the name of a folder or a shard says."""
    match = _IN_NAME.fullmatch(name)
    return SPLIT_WORDS.get(name.strip().lower()) or (SPLIT_WORDS[match[1]] if match else None)


@cache
def _split_of_folders(folders: str) -> str | None:
    """The split that the outermost of some folders says, "a/b/c"."""
    return next((split for folder in folders.split("/") if (split := split_of_name(folder))), None)


def _splits(table: pd.DataFrame, unsplit: str, root: Path, person: str | None) -> list[str]:
    """The split of each row: by its column, by its folders, else as ``unsplit`` says."""
    names = table["file_name"].tolist()
    words = label_texts(table["split"]).tolist() if "split" in table.columns else [None] * len(table)
    splits = [
        split_word(word, root, name) or _split_of_folders(name.rpartition("/")[0])
        for name, word in zip(names, words, strict=True)
    ]
    dealt = [name for name, split in zip(names, splits, strict=True) if split is None]
    if unsplit == "hash":
        deal_by = same_bytes(root, dealt)
        if person is not None:
            people = dict(zip(names, label_texts(table[person]), strict=True))
            deal_by |= {name: people[name] for name in dealt if people[name] is not None}
        return [split or hash_split(deal_by.get(name, name)) for name, split in zip(names, splits, strict=True)]
    return [split or unsplit for split in splits]
