"""Folders of pictures as Hugging Face `datasets` reads them ("imagefolder"): a metadata file, or one folder a class.

A metadata file (``metadata.csv``, ``.jsonl`` or ``.parquet``) has a column ``file_name`` relative to its own folder and
a column for each label. Without one, the folder that a picture stands in is its ``label``. The balanced datasets that
the pipeline writes are folders of this kind.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd

from vlbias.data.files import DEFAULT_MAX_MISSING, drop_missing, inside_root, list_images, read_text
from vlbias.data.table import FaceDataset, Problem, hash_split, label_columns
from vlbias.errors import ConfigError, DatasetError, LabelError, MissingDependencyError, unknown

__all__ = ["METADATA_FILES", "load_folder"]

METADATA_FILES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")

#: Words for a split, in a column or as a folder's name; the same that `datasets` knows.
SPLIT_WORDS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}


def load_folder(
    root: str | os.PathLike[str],
    *,
    attributes: Sequence[str] | None = None,
    unsplit: str = "hash",
    max_missing: float = DEFAULT_MAX_MISSING,
) -> FaceDataset:
    """Read an imagefolder; no picture is opened.

    Args:
        root: the folder.
        attributes: columns that are labels; ``None`` for all that are neither provenance nor scores.
        unsplit: split of pictures that neither a ``split`` column nor a folder's name assigns: ``"hash"`` for a tenth
            test and a tenth val by :func:`hash_split`, or the name of one split.
        max_missing: share of pictures named in the metadata that may be missing on disk, 0..1.

    Raises:
        DatasetError: no picture; metadata that cannot be read, lacks ``file_name``, names a picture twice or one
            outside its folder; too many missing pictures.
        LabelError: a split of an unknown name.
        ConfigError: an option out of range.
    """
    if unsplit != "hash" and unsplit not in ("train", "val", "test"):
        raise ConfigError(f"`unsplit` must be 'hash', 'train', 'val' or 'test'; got '{unsplit}'.")
    root = Path(root)
    if not root.is_dir():
        raise DatasetError(f"{root} is not a folder.")
    pictures = list_images(root)
    metadata = _find_metadata(root, pictures)
    if metadata:
        table, problems = _read_labelled(root, metadata, pictures, max_missing)
    elif pictures:
        table, problems = _read_class_folders(pictures), []
    else:
        raise DatasetError(f"{root} holds neither a picture nor a {METADATA_FILES[0]}. Give the folder of a dataset.")
    table["split"] = _splits(table, unsplit, root)
    table.index = pd.Index(table["file_name"].tolist(), name="id")
    # file_name and split first, the rest as it stood
    table = table[["file_name", "split", *(column for column in table if column not in ("file_name", "split"))]]
    if attributes is None:
        labels = [column for column in label_columns(table.columns) if _is_plain(table[column])]
    else:
        labels = list(attributes)
        for name in labels:
            if name not in table.columns:
                raise unknown("attribute", name, label_columns(table.columns), where=str(root))
    return FaceDataset(root.resolve().name, table, root=root, attributes=labels, problems=problems)


def _find_metadata(root: Path, pictures: list[str]) -> list[Path]:
    """Metadata files in the root and in every folder that leads to a picture."""
    folders = {PurePosixPath(".")}
    for name in pictures:
        folders.update(PurePosixPath(name).parents)
    found = [root / folder / name for folder in sorted(folders) for name in METADATA_FILES]
    found = [path for path in found if path.is_file()]
    kinds = sorted({path.suffix for path in found})
    if len(kinds) > 1:
        raise DatasetError(f"{root} holds metadata files of several kinds ({', '.join(kinds)}). Keep one kind.")
    return found


def _read_labelled(
    root: Path, metadata: list[Path], pictures: list[str], max_missing: float
) -> tuple[pd.DataFrame, list[Problem]]:
    parts = []
    described: set[str] = set()
    for path in metadata:
        part = _read_metadata(path)
        column = _file_column(path, part)
        folder = PurePosixPath(path.parent.relative_to(root).as_posix())
        names = []
        first_row: dict[str, int] = {}
        for row, name in enumerate(part[column].tolist(), start=1):
            where = f"{path}, row {row}"
            if not isinstance(name, str) or not name.strip():
                raise DatasetError(f"{where}: no file name in column '{column}'.")
            clean = inside_root(name.strip(), folder)
            if clean is None:
                raise DatasetError(f"{where}: '{name}' leaves the folder of its metadata file. Use names inside it.")
            if clean in first_row:
                raise DatasetError(f"{where}: '{name}' stands there twice, first in row {first_row[clean]}. Keep one.")
            first_row[clean] = row
            names.append(clean)
        part = part.drop(columns=column)
        part.insert(0, "file_name", names)
        # A file further up speaks first: our datasets have a metadata.csv at the root for people and one in each
        # split for `datasets`, which say the same.
        new = [name not in described for name in names]
        if any(new):
            parts.append(part[new])
        described.update(names)
    if not parts:
        raise DatasetError(f"{metadata[0]} has no row.")
    table = pd.concat(parts, ignore_index=True)
    on_disk = set(pictures)
    names = table["file_name"].tolist()
    is_there = [name in on_disk or (root / name).is_file() for name in names]
    problems = drop_missing(names, is_there, max_missing=max_missing, root=root)
    unlabelled = [name for name in pictures if name not in described]
    if unlabelled:
        others = f" (and {len(unlabelled) - 1} more)" if len(unlabelled) > 1 else ""
        problems.append(Problem(unlabelled[0], "no_label", f"a picture{others} without a row in the metadata"))
    return table[is_there].reset_index(drop=True), problems


def _read_metadata(path: Path) -> pd.DataFrame:
    try:
        if path.suffix == ".csv":
            # Missing values are spelled as for `datasets`, which uses the same parser.
            table = pd.read_csv(path, skipinitialspace=True, encoding="utf-8-sig", dtype_backend="numpy_nullable")
            if not isinstance(table.index, pd.RangeIndex):  # pandas takes a value too many for a name of the row
                raise DatasetError(f"{path}, line 2: more values than the {len(table.columns)} columns of line 1.")
        elif path.suffix == ".jsonl":
            table = _from_records(_json_lines(path))
        else:
            table = pd.read_parquet(path)
    except ImportError as error:
        raise MissingDependencyError(f"reading {path} needs pyarrow: pip install 'vlbias[datasets]'.") from error
    except pd.errors.EmptyDataError as error:
        raise DatasetError(f"{path} is empty.") from error
    except (ValueError, OSError) as error:  # what the parsers raise for a damaged file; ArrowInvalid is a ValueError
        if isinstance(error, DatasetError):
            raise
        raise DatasetError(f"{path} cannot be read: {str(error).strip()}") from error
    table.columns = pd.Index([str(column).strip() for column in table.columns])
    if table.columns.has_duplicates:
        twice = sorted(set(table.columns[table.columns.duplicated()]))
        raise DatasetError(f"{path} has a column twice: {', '.join(twice)}.")
    return table.apply(_plain_dtype, axis=0) if len(table) else table


def _json_lines(path: Path) -> list[dict[str, Any]]:
    rows = []
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise DatasetError(f"{path}, line {number}: not JSON ({error.msg} at column {error.colno}).") from error
        if not isinstance(row, dict):
            raise DatasetError(f"{path}, line {number}: expected an object {{...}}, got {type(row).__name__}.")
        rows.append(row)
    return rows


def _from_records(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Rows as columns; a key that some rows lack is missing there, and whole numbers stay whole."""
    columns: dict[str, Any] = {}
    for name in dict.fromkeys(name for row in rows for name in row):
        values = [row.get(name) for row in rows]
        types = {type(value) for value in values if value is not None}
        dtype = {int: "Int64", bool: "boolean", str: "str"}.get(next(iter(types))) if len(types) == 1 else None
        columns[name] = pd.Series(values, dtype=dtype)
    return pd.DataFrame(columns)


def _plain_dtype(column: pd.Series) -> pd.Series:
    """NumPy's own dtype where no value is missing; floats always (their missing value is NaN)."""
    dtype = column.dtype
    if isinstance(dtype, pd.StringDtype) or not pd.api.types.is_extension_array_dtype(dtype):
        return column.astype("str") if isinstance(dtype, pd.StringDtype) else column
    if pd.api.types.is_float_dtype(dtype):
        return column.astype("float64")
    if pd.api.types.is_bool_dtype(dtype) or pd.api.types.is_integer_dtype(dtype):
        return column if column.isna().any() else column.astype(dtype.numpy_dtype)  # type: ignore[union-attr]
    return column


def _file_column(path: Path, table: pd.DataFrame) -> str:
    if "file_name" in table.columns:
        return "file_name"
    others = [column for column in table.columns if column.endswith("_file_name")]
    if len(others) == 1:
        return others[0]
    columns = ", ".join(map(str, table.columns)) or "none"
    raise DatasetError(f"{path} lacks the column 'file_name'; its columns are: {columns}.")


def _is_plain(column: pd.Series) -> bool:
    """Whether a column holds single values; lists and objects (boxes, say) are no labels."""
    return not (column.dtype == object and column.map(lambda value: isinstance(value, (list, dict, set))).any())


def _read_class_folders(pictures: list[str]) -> pd.DataFrame:
    """``train/smiling/1.png`` or ``smiling/1.png``: the folder is the label, as for `datasets`.

    There are labels only if all pictures stand equally deep, in folders of several names.
    """
    table = pd.DataFrame({"file_name": pictures})
    parents = [PurePosixPath(name).parent for name in pictures]
    labels = {parent.name for parent in parents}
    depths = {len(parent.parts) for parent in parents}
    if len(labels) > 1 and len(depths) == 1 and not all(_split_word(label) for label in labels):
        table["label"] = pd.array([parent.name for parent in parents], dtype="str")
    return table


def _split_word(text: str) -> str | None:
    return SPLIT_WORDS.get(text.strip().lower())


def _splits(table: pd.DataFrame, unsplit: str, root: Path) -> list[str]:
    given = table["split"].tolist() if "split" in table.columns else [None] * len(table)
    splits = []
    for name, word in zip(table["file_name"].tolist(), given, strict=True):
        if word is not None and not pd.isna(word):
            split = _split_word(str(word))
            if split is None:
                raise LabelError(f"{root}: '{name}' has the split '{word}'; expected {', '.join(sorted(SPLIT_WORDS))}.")
        else:
            folders = PurePosixPath(name).parts[:-1]
            split = next((found for folder in folders if (found := _split_word(folder))), None)
            split = split or (hash_split(name) if unsplit == "hash" else unsplit)
        splits.append(split)
    return splits
