"""The label table of a folder as files: ``metadata.csv``, ``.jsonl`` or ``.parquet``, and the types of its columns.

A CSV file says nothing of types: "0" may be text, and "None" a class. So a dataset that vlbias writes has its types
beside it, in ``metadata.schema.json``, and reads back exactly. Hugging Face ``datasets`` reads the ``metadata.parquet``
in the folder of each split, which has the types in it.
"""

from __future__ import annotations

import csv
import io
import json
import re
import unicodedata
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from vlbias.data.files import MAX_COLUMNS, MAX_LINES, MAX_ROW_LENGTH, MAX_TABLE_BYTES, csv_rows, refuse_long
from vlbias.data.table import Problem
from vlbias.errors import DatasetError
from vlbias.files import open_plain, parse_json, read_json
from vlbias.labels import typed_labels

__all__ = [
    "COLUMN_KINDS",
    "METADATA_FILES",
    "SCHEMA_FILE",
    "arrow_schema",
    "csv_parts",
    "csv_text",
    "is_label_column",
    "metadata_files",
    "misread_words",
    "most_rows",
    "odd_labels",
    "open_parquet",
    "parse_csv",
    "read_metadata",
    "read_parquet",
    "read_table",
    "refuse_large",
    "stored_table",
    "typed_column",
    "typed_table",
]

#: The largest table: half a million faces with forty columns; of a few columns, a million.
MAX_ROWS, MAX_CELLS = 1_000_000, 20_000_000
#: Donors that are tried for one edit of a plan, at most.
_TRIES = 4
#: Rows that are turned into text at a time.
_ROWS_TOGETHER = 10_000
#: Values in lines of JSON take more memory and time than cells of a column.
MAX_JSON_CELLS = 5_000_000
#: Columns or row groups of a Parquet file that are looked at.
MAX_PARTS = 100_000
#: Text that a Parquet file may unpack to, all cells together.
MAX_TEXT_BYTES = 512 * 2**20
#: What the parsers raise for a damaged file.
_DAMAGE = (ValueError, OSError, OverflowError, csv.Error, pa.ArrowException)

METADATA_FILES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
#: A cell of a CSV file such as 007.
_LEADING_ZERO = re.compile(rb'(?:^|[,\n\r])[ "]*[+-]?0\d+[ "]*(?:[,\n\r]|$)')
#: More different labels than these are names of people or pictures, not classes.
MAX_CLASSES = 200
#: What people write where they do not know.
UNKNOWN_WORDS = frozenset(
    {"?", "-", "unknown", "unk", "missing", "undefined", "not known", "not available", "not given"}
)
#: What words are often written with or without.
_NO_SIGN = re.compile(r"[\s._-]+")
#: Beside a ``metadata.csv`` that vlbias wrote: column => type. Only an empty cell is missing there.
SCHEMA_FILE = "metadata.schema.json"

#: Type => how Arrow and pandas call it. "json" is for what is not a label: lists and objects, written as JSON.
_NULLABLE = {kind: pd.Int64Dtype() for kind in (pa.int8(), pa.int16(), pa.int32(), pa.int64())}
_NULLABLE |= {pa.bool_(): pd.BooleanDtype()}
_ARROW = {"boolean": pa.bool_(), "integer": pa.int64(), "number": pa.float64()}
#: Types of columns, as the schema of a metadata file names them, and what pandas calls them.
COLUMN_KINDS = {"boolean": "boolean", "integer": "Int64", "number": "float64", "text": "str", "json": "object"}


class _Lines(io.StringIO):
    """Takes rows that end in ``\\r\\n``, so that cells with either sign are quoted, and ends them in ``\\n``."""

    def write(self, row: str) -> int:
        return super().write(row.removesuffix("\r\n") + "\n")


def csv_text(table: pd.DataFrame) -> str:
    """A table as CSV without its index, which reads back with every line end that a cell holds.

    Example:
        >>> csv_text(pd.DataFrame({"a": ["x", "y\\rz"]}))
        'a\\nx\\n"y\\rz"\\n'
    """
    return b"".join(csv_parts(table)).decode()


def csv_parts(table: pd.DataFrame) -> Iterator[bytes]:
    """The bytes of :func:`csv_text`, some thousand rows at a time."""
    for start in range(0, max(len(table), 1), _ROWS_TOGETHER):
        lines = _Lines(newline="")
        part = table.iloc[start : start + _ROWS_TOGETHER]
        part.to_csv(lines, index=False, header=start == 0, quoting=csv.QUOTE_MINIMAL, lineterminator="\r\n")
        yield lines.getvalue().encode()


def metadata_files(table: pd.DataFrame) -> Iterator[tuple[str, Iterable[bytes]]]:
    """A label table as the files of an imagefolder, the same bytes for the same table.

    Args:
        table: columns ``file_name`` ("train/0.png"), ``split`` and whatever labels.

    Yields:
        Name and content, in pieces: for each split a ``metadata.parquet`` in its folder, then the types of
        ``metadata.csv``, and this itself last: it says that all is there.

    Example:
        >>> [name for name, _ in metadata_files(pd.DataFrame({"file_name": ["test/0.png"], "split": ["test"]}))]
        ['test/metadata.parquet', 'metadata.schema.json', 'metadata.csv']
    """
    typed, kinds = stored_table(table)
    schema = arrow_schema(kinds)
    for split, part in typed.groupby("split", sort=True):
        names = [str(name).removeprefix(f"{split}/") for name in part["file_name"]]
        arrow = pa.Table.from_pandas(part.assign(file_name=names), schema=schema, preserve_index=False)
        buffer = io.BytesIO()
        pq.write_table(arrow.replace_schema_metadata(None), buffer)
        yield f"{split}/metadata.parquet", [buffer.getvalue()]
    yield SCHEMA_FILE, [(json.dumps({"columns": kinds}, indent=2, ensure_ascii=False) + "\n").encode()]
    yield "metadata.csv", csv_parts(typed)


def stored_table(table: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, str]]:
    """A label table with each column in the type that it is stored in, and what these are: a key of COLUMN_KINDS."""
    kinds, columns = {}, {}
    for name, column in table.items():
        is_label = is_label_column(column)
        columns[str(name)] = typed_labels(column if is_label else column.map(_as_json))
        kinds[str(name)] = _kind(columns[str(name)]) if is_label else "json"
    return pd.DataFrame(columns), kinds


def arrow_schema(kinds: Mapping[str, str]) -> pa.Schema:
    """Types of columns for Arrow."""
    return pa.schema([(name, _ARROW.get(kind, pa.string())) for name, kind in kinds.items()])


def typed_column(values: pd.Series, kind: str) -> pd.Series:
    """Values of JSON or Parquet as a column of a known type.

    Raises:
        DatasetError: a value is of another type.
    """
    if kind == "json":
        return values.map(lambda value: parse_json(value) if isinstance(value, str) else value)
    try:
        plain = [None if missing else value for value, missing in zip(values, values.isna(), strict=True)]
        if kind == "text" and not all(isinstance(value, str | None) for value in plain):
            raise ValueError("a value is not text")
        return pd.Series(plain, values.index, COLUMN_KINDS[kind])
    except (TypeError, ValueError) as error:
        said = f"the column '{values.name}' is not of the type {kind} ({error})"
        raise DatasetError(f"{said}. Write the set anew.") from error


def read_metadata(path: Path) -> pd.DataFrame:
    """The table of a metadata file, each column of labels in one type.

    Args:
        path: a ``.csv``, ``.jsonl`` or ``.parquet`` file.

    Raises:
        DatasetError: it cannot be read, has no column, or a column twice; the message names the file.
    """
    readers = {".csv": _read_csv, ".jsonl": _read_json_lines}
    try:
        table = readers.get(path.suffix, read_parquet)(path)
    except DatasetError:
        raise
    except pd.errors.EmptyDataError as error:
        raise DatasetError(f"{path} is empty.") from error
    except UnicodeDecodeError as error:
        said = f"{path} is not text in UTF-8 ({error.reason} at byte {error.start})"
        raise DatasetError(f"{said}. Save it as CSV in UTF-8.") from error
    except _DAMAGE as error:
        raise DatasetError(f"{path} cannot be read: {str(error).strip():.300}") from error
    table.columns = _clean_names(table.columns)
    _refuse_twice(path, list(table.columns))
    return typed_table(table)


def _clean_names(columns: Iterable[object]) -> pd.Index:
    """Names of columns without spaces around them, accents composed as in labels."""
    return pd.Index([unicodedata.normalize("NFC", str(name)).strip() for name in columns])


def typed_table(table: pd.DataFrame) -> pd.DataFrame:
    """The table with each column of labels in one type (see ``vlbias.labels.typed_labels``); lists stay as they are."""
    columns = {name: typed_labels(column) if is_label_column(column) else column for name, column in table.items()}
    return pd.DataFrame(columns, index=table.index)


def is_label_column(column: pd.Series) -> bool:
    """Whether a column holds single values; lists and objects (boxes, say) are no labels."""
    if column.dtype != object:
        return not isinstance(column.dtype, pd.ArrowDtype) or not pa.types.is_nested(column.dtype.pyarrow_dtype)
    return not any(isinstance(value, (list, tuple, dict, set, np.ndarray)) for value in column)


def misread_words(path: Path, table: pd.DataFrame) -> list[tuple[str, str]]:
    """What cells of a CSV file without types say and what they read as: for each column a fixed word and a sentence.

    Words such as "NA" and "None" read as missing, and "007" as the number 7. ``datasets`` takes them so as well; but
    somebody may mean a class or a name, so they are worth a word.
    """
    if path.suffix != ".csv" or (path.parent / SCHEMA_FILE).is_file():
        return []
    empty = [name for name in table.columns if table[name].isna().any()]
    whole = [name for name in table.columns if pd.api.types.is_integer_dtype(table[name].dtype)]
    with open_plain(path) as file:
        whole = whole if _LEADING_ZERO.search(file.read()) else []
    if not (empty or whole):
        return []
    raw = parse_csv(path, dtype=str, keep_default_na=False, skipinitialspace=True)
    raw.columns = _clean_names(raw.columns)
    missing = {name: set(raw[name][table[name].isna().to_numpy()].str.strip()) - {""} for name in empty}
    padded = {name: set(raw[name][raw[name].str.fullmatch(r"\s*[+-]?0\d+\s*")].str.strip()) for name in whole}
    return [
        (code, f"{_few(words)} in '{name}' reads as {what}, as for `datasets`; JSON can hold such {kind}")
        for found, code, what, kind in (
            (missing, "missing_word", "missing", "a class"),
            (padded, "padded_number", "a number", "text"),
        )
        for name, words in found.items()
        if words
    ]


def odd_labels(labels: pd.DataFrame) -> list[Problem]:
    """Labels that may not be meant: one class spelled in several ways, and words or -1 for what is not known.

    They are labels all the same; nothing is changed.
    """
    return [
        Problem(f"column '{name}'", code, f"{_told(column, words)} {said}")
        for name, column in labels.items()
        for code, words, said in _odd(column)
    ]


def _odd(column: pd.Series) -> Iterator[tuple[str, list[object], str]]:
    """Code, labels and what is said of them."""
    blank = "if no label is meant, leave the cell empty"
    if pd.api.types.is_integer_dtype(column.dtype):
        if (column == -1).any() and (column == 0).any():
            yield "unknown_label", [-1], f"is a label here; {blank}"
        return
    classes = set(column.dropna()) if pd.api.types.is_string_dtype(column.dtype) else set()
    if len(classes) > MAX_CLASSES:
        return
    spellings: dict[str, list[object]] = {}
    for label in sorted(classes):
        folded = unicodedata.normalize("NFKC", label).casefold()
        if folded in UNKNOWN_WORDS:
            yield "unknown_label", [label], f"is a label here; {blank}"
        is_word = not any(sign.isdigit() for sign in folded)  # "1-5" is not "15"
        spellings.setdefault(_NO_SIGN.sub("", folded) if is_word else folded, []).append(label)
    for alike in spellings.values():
        if len(alike) > 1:
            yield "alike_labels", alike, "are different labels; spell them alike if they mean the same"


def _told(column: pd.Series, labels: Sequence[object]) -> str:
    """Labels with their counts."""
    return " and ".join(f"'{label}' ({(column == label).sum()})" for label in labels[:3])


def _few(words: set[str]) -> str:
    return ", ".join(sorted(words)[:5])


def _as_json(value: object) -> str | None:
    plain = value.tolist() if isinstance(value, np.ndarray) else value
    return None if plain is None or plain is pd.NA else json.dumps(plain, ensure_ascii=False, default=list)


def _kind(column: pd.Series) -> str:
    if pd.api.types.is_bool_dtype(column.dtype):
        return "boolean"
    if pd.api.types.is_integer_dtype(column.dtype):
        return "integer"
    return "number" if pd.api.types.is_float_dtype(column.dtype) else "text"


# ---------------------------------------------------------------------------------------------------------------------
# CSV


def most_rows(columns: int, bytes_a_row: float) -> int:
    """Rows of so many columns and bytes, as CSV, that a metadata file may have and still be read."""
    return int(min(MAX_ROWS, MAX_CELLS // max(columns, 1), MAX_TABLE_BYTES / max(bytes_a_row, 1)))


def read_table(path: Path, **options: Any) -> pd.DataFrame:
    """A table that a run wrote, as :func:`parse_csv` reads it; it may have a row for each try of every face.

    Raises:
        DatasetError: it is larger than any of faces, or cannot be read; the message names the file.
    """
    try:
        _check_size(path, times=_TRIES)
        return parse_csv(path, **options)
    except DatasetError:
        raise
    except (*_DAMAGE, TypeError) as error:  # what pandas raises for a damaged file
        raise DatasetError(f"{path} cannot be read ({str(error).strip():.300}).") from error


def _check_size(path: Path, *, skipinitialspace: bool = False, times: int = 1) -> None:
    """Refuse a CSV file that is more than so many times larger than any table of faces."""
    refuse_long(path, times * MAX_TABLE_BYTES)
    with open_plain(path) as plain, io.TextIOWrapper(plain, encoding="utf-8-sig", newline="") as file:
        rows = csv_rows(path, _lines(path, file), skipinitialspace=skipinitialspace)
        columns = list(_clean_names(next(rows, (0, []))[1]))
        refuse_large(path, -(-sum(1 for _ in rows) // times), len(columns))
    _refuse_twice(path, columns)


def _read_csv(path: Path) -> pd.DataFrame:
    is_typed = (path.parent / SCHEMA_FILE).is_file()
    _check_size(path, skipinitialspace=not is_typed)
    if is_typed:
        return _read_typed(path, _read_schema(path.parent / SCHEMA_FILE))
    # Missing values are spelled as for `datasets`, which uses the same parser.
    return parse_csv(path, skipinitialspace=True, dtype_backend="numpy_nullable", low_memory=False)


def _lines(path: Path, file: io.TextIOBase) -> Iterator[str]:
    number = 0
    while line := file.readline(MAX_ROW_LENGTH + 1):
        number += 1
        if len(line) > MAX_ROW_LENGTH:
            raise DatasetError(f"{path}, line {number}: more than {MAX_ROW_LENGTH:,} characters; it is not read.")
        yield line


def parse_csv(path: Path, **options: Any) -> pd.DataFrame:
    """A CSV file as pandas reads it with ``options``, in UTF-8, with no value in another column than its own.

    Raises:
        DatasetError: the first row has more values than there are columns: by itself pandas takes the first value for
            the row's name, and each other one for its neighbour's.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)
        try:
            return pd.read_csv(path, index_col=False, encoding="utf-8-sig", **options)
        except pd.errors.ParserWarning as error:
            columns = pd.read_csv(path, index_col=False, encoding="utf-8-sig", nrows=0).columns
            raise DatasetError(f"{path}, line 2: more values than the {len(columns)} columns of line 1.") from error


def _read_schema(path: Path) -> dict[str, str]:
    stored = read_json(path)
    columns = stored.get("columns") if isinstance(stored, Mapping) else None
    if not isinstance(columns, Mapping) or not all(str(kind) in COLUMN_KINDS for kind in columns.values()):
        raise DatasetError(
            f"{path} must say the type of each column ({', '.join(COLUMN_KINDS)}). Delete it to have the types guessed."
        )
    return dict(columns)


def _read_typed(path: Path, kinds: Mapping[str, str]) -> pd.DataFrame:
    """A CSV file whose types are known; only an empty cell is missing. Columns that came later are text."""
    raw = parse_csv(path, dtype=str, keep_default_na=False)
    return pd.DataFrame({name: _typed(path, raw[name], kinds.get(name, "text")) for name in raw.columns})


def _typed(path: Path, cells: pd.Series, kind: str) -> pd.Series:
    if kind == "text":
        return cells.mask(cells == "").astype("str")
    parsers: dict[str, Callable[[str], Any]] = {"boolean": _boolean, "integer": int, "number": float}
    parse = parsers.get(kind, parse_json)
    try:
        return pd.Series([None if cell == "" else parse(cell) for cell in cells], dtype=COLUMN_KINDS[kind])
    except (ValueError, OverflowError) as error:
        raise DatasetError(
            f"{path}: the column '{cells.name}' is of the type {kind}, but a cell is not ({error}). "
            f"Correct it, or change the type in {SCHEMA_FILE}."
        ) from error


def _boolean(cell: str) -> bool:
    if cell not in ("True", "False"):
        raise ValueError(f"expected True or False, got '{cell}'")
    return cell == "True"


def refuse_large(path: Path, rows: int, columns: int) -> None:
    """A small file can make a large table: of empty cells, of one value many times, of a column for each row.

    Raises:
        DatasetError: the table is larger than any of faces.
    """
    if columns > MAX_COLUMNS or rows > MAX_ROWS or rows * columns > MAX_CELLS:
        raise DatasetError(
            f"{path} has {rows:,} rows of {columns:,} columns; at most {MAX_COLUMNS:,} columns and {MAX_CELLS:,} cells "
            f"in {MAX_ROWS:,} rows are read. Leave out columns that are not labels, or take a larger set in parts."
        )


def _refuse_twice(path: Path, columns: list[str]) -> None:
    if twice := sorted({name for name in columns if columns.count(name) > 1 and name}):
        raise DatasetError(f"{path} has a column twice: {', '.join(twice)}. Rename one of them.")


# ---------------------------------------------------------------------------------------------------------------------
# Parquet


def read_parquet(path: Path, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """Columns of a Parquet file, ``None`` for all, once it is known what they unpack to.

    It can hold the same text a million times in a few bytes.

    Raises:
        DatasetError: it is more than is read.
    """
    with open_plain(path) as file:
        stored = open_parquet(file)
        refuse_large(path, stored.metadata.num_rows, stored.metadata.num_columns)
        _refuse_many_values(path, stored, columns)
        texts = [field.name for field in stored.schema_arrow if pa.types.is_string(field.type)]
        encoded = open_parquet(file, read_dictionary=texts)
        rows = num_bytes = 0
        for batch in encoded.iter_batches(columns=columns):
            rows += len(batch)
            num_bytes += sum(_text_bytes(column) for column in batch.columns)
            refuse_large(path, rows, len(batch.columns))
            if num_bytes > MAX_TEXT_BYTES:
                raise DatasetError(f"{path} unpacks to more than {MAX_TEXT_BYTES:,} bytes of text; it is not read.")
        # whole numbers beside missing ones must not become floating point
        cells = stored.read(columns)
        cells.validate(full=True)  # text is UTF-8; pandas finds out later than it should
        try:
            table = cells.to_pandas(types_mapper=_NULLABLE.get)
        except (LookupError, TypeError, AttributeError, RecursionError) as error:
            raise DatasetError(f"{path} cannot be read: its notes for pandas are damaged ({error!r:.100}).") from error
    return table.reset_index() if any(table.index.names) else table  # columns that pandas keeps as an index


def open_parquet(file: BinaryIO, **options: Any) -> pq.ParquetFile:
    """A Parquet file, its lists of columns and row groups no longer than is looked at: a column takes two kilobytes.

    Raises:
        OSError: one is, or the file is damaged.
    """
    return pq.ParquetFile(file, thrift_container_size_limit=MAX_PARTS, **options)


def _refuse_many_values(path: Path, stored: pq.ParquetFile, columns: Sequence[str] | None) -> None:
    """A few rows can hold lists of any length."""
    num_values = 0
    for group in range(stored.metadata.num_row_groups):
        about = stored.metadata.row_group(group)
        for place in range(about.num_columns):
            column = about.column(place)
            if columns is None or column.path_in_schema.partition(".")[0] in columns:
                num_values += column.num_values
    if num_values > MAX_CELLS:
        raise DatasetError(f"{path} has {num_values:,} values; at most {MAX_CELLS:,} are read. Leave out long lists.")


def _text_bytes(column: pa.Array) -> int:
    """Bytes of a column's cells once each has its own."""
    if not isinstance(column, pa.DictionaryArray):
        return int(column.nbytes)
    lengths = pc.binary_length(column.dictionary)
    return int(pc.sum(lengths.take(column.indices)).as_py() or 0)


# ---------------------------------------------------------------------------------------------------------------------
# JSON Lines


def _read_json_lines(path: Path) -> pd.DataFrame:
    rows: list[dict[str, Any]] = []
    names: set[str] = set()
    num_cells = 0
    for row in _json_lines(path):
        rows.append(row)
        names.update(row)
        num_cells += len(row)
        refuse_large(path, len(rows), len(names))
        if len(rows) > MAX_LINES or num_cells > MAX_JSON_CELLS:
            said = f"{path} has more than {MAX_LINES:,} lines or {MAX_JSON_CELLS:,} values"
            raise DatasetError(f"{said}. Save it as Parquet or CSV.")
    return pd.DataFrame(_columns(rows))


def _json_lines(path: Path) -> Iterator[dict[str, Any]]:
    refuse_long(path)
    # JSON Lines end with \n alone: text may hold other ends of lines, such as U+2028, as they are.
    with open_plain(path) as plain, io.TextIOWrapper(plain, encoding="utf-8-sig", newline="\n") as file:
        yield from _objects(path, _lines(path, file))


def _objects(path: Path, lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = parse_json(line)
        except ValueError as error:
            detail = f"{error.msg} at column {error.colno}" if isinstance(error, json.JSONDecodeError) else error
            raise DatasetError(f"{path}, line {number}: not JSON ({detail}).") from error
        if not isinstance(row, dict):
            raise DatasetError(f"{path}, line {number}: expected an object {{...}}, got {type(row).__name__}.")
        yield row


def _columns(rows: list[dict[str, object]]) -> dict[str, pd.Series]:
    """Rows as columns; a key that some rows lack is missing there."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: pd.Series([row.get(name) for row in rows], dtype=object) for name in names}
