"""Parquet with pictures inside, as Hugging Face ``datasets`` writes it: a column of ``{bytes, path}``, and labels."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from vlbias.arguments import checked_call
from vlbias.data.metadata import METADATA_FILES, open_parquet, read_parquet
from vlbias.data.packed import MAX_PICTURE_BYTES, PackedDataset, shards_of, unpacked
from vlbias.data.table import Problem
from vlbias.errors import DatasetError, ImageError
from vlbias.files import open_plain, parse_json

__all__ = ["ParquetDataset", "load_parquet"]

#: Pictures that are taken out of a file at a time, and the largest part of a file, unpacked, that one is looked for in.
_AT_ONCE, MAX_GROUP_BYTES = 4, 2**29
#: A row group of no more bytes stays in memory, for the pictures beside the one that was asked for.
_KEPT_BYTES = 2**26
_DAMAGE = (pa.ArrowException, OSError, ValueError, OverflowError)


@dataclass(frozen=True, repr=False, eq=False)
class ParquetDataset(PackedDataset):
    """Faces in Parquet files; ``places`` has ``group``, the row group, and ``row``, the row in it."""

    def _bytes(self, item: str) -> bytes:
        shard = self._shard(item)
        group, row = self._place(item, "group"), self._place(item, "row")
        try:
            kept = _kept_group(shard, os.stat(shard).st_mtime_ns, group)
            pictures = _pictures(shard, group) if kept is None else iter(kept)
            return next(data for number, data in enumerate(pictures) if number == row)
        except (*_DAMAGE, StopIteration) as error:
            place = f"{shard}: row {row} of row group {group}"
            raise ImageError(f"{place} cannot be read ({error}). Fetch it again.") from error


@functools.lru_cache(maxsize=4)
def _kept_group(shard: Path, changed_ns: int, group: int) -> list[bytes] | None:
    """The pictures of a row group, if they are few."""
    kept, num_bytes = [], 0
    for data in _pictures(shard, group):
        kept.append(data)
        num_bytes += len(data)
        if num_bytes > _KEPT_BYTES:
            return None
    return kept


def _pictures(shard: Path, group: int) -> Iterator[bytes]:
    """The pictures of a row group, in order; an empty one for a row that has none.

    Raises:
        ValueError: they unpack to more than is read.
    """
    with open_plain(shard) as handle:
        file = open_parquet(handle)
        column = _picture_column(file.schema_arrow)
        if column is None:
            raise ValueError("it has no column of pictures any more")
        leaf = column[1]
        parts = [file.metadata.row_group(group).column(i) for i in range(file.metadata.num_columns)]
        num_bytes = sum(part.total_uncompressed_size for part in parts if part.path_in_schema == leaf)
        if num_bytes > MAX_GROUP_BYTES:
            raise ValueError(f"a row group of {num_bytes:,} bytes; at most {MAX_GROUP_BYTES:,} are read")
        for batch in file.iter_batches(batch_size=_AT_ONCE, row_groups=[group], columns=[leaf]):
            values = batch.column(0)
            for value in values.field(0) if pa.types.is_struct(values.type) else values:
                data = value.as_py() or b""
                if len(data) > MAX_PICTURE_BYTES:
                    raise ValueError(f"a picture of {len(data):,} bytes; at most {MAX_PICTURE_BYTES:,} are read")
                yield data


def _picture_column(schema: pa.Schema) -> tuple[str, str] | None:
    """(column of pictures, where their bytes are); ``None`` if there is none."""
    for field in schema:
        if pa.types.is_struct(field.type) and field.type.get_field_index("bytes") >= 0:
            if _is_bytes(field.type.field("bytes").type):
                return field.name, f"{field.name}.bytes"
        elif _is_bytes(field.type):
            return field.name, field.name
    return None


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


@checked_call
def load_parquet(
    root: str | os.PathLike[str],
    *,
    attributes: Sequence[str] | None = None,
    unsplit: str = "hash",
    follow_links: bool = False,
) -> ParquetDataset:
    """Read Parquet files with pictures inside; no picture is decoded, and none is unpacked.

    Args:
        root: a folder of ``.parquet`` files, one of them, or a pattern such as ``data/train-*.parquet``.
        attributes: columns that are labels; ``None`` for all.
        unsplit: split of pictures for which neither a column nor the name of their file says one, as for
            ``load_folder``.
        follow_links: whether the files may be links.

    Returns:
        Ids are the column ``file_name``, else the file and the row. A class that ``datasets`` keeps as a number has the
        name that stands beside it.

    Raises:
        DatasetError: no file, one that is damaged, or none with pictures.
        LabelError: a split of an unknown name. UnknownNameError: no such column.
    """
    packing = shards_of(root, {".parquet"}, skip={METADATA_FILES[2]}, follow_links=follow_links)
    tables, places = [], []
    for number, shard in enumerate(packing.shards):
        try:
            found = _read_file(number, shard)
        except _DAMAGE as error:
            raise DatasetError(f"{shard} cannot be read: {str(error).strip():.300}") from error
        if found is None:
            packing.problems.append(Problem(shard.name, "no_image_column", "a table without pictures"))
            continue
        tables.append(found[0])
        places.append(found[1])
    if not tables:
        what = "a column of pictures ({bytes, path})"
        raise DatasetError(f"{root} has no Parquet file with {what}. Write them with the pictures inside.")
    rows, where = pd.concat(tables, ignore_index=True), pd.concat(places, ignore_index=True)
    return unpacked(ParquetDataset, packing, rows, where, unsplit=unsplit, attributes=attributes)


def _num_missing(group: pq.RowGroupMetaData, leaf: str) -> int | None:
    """How many rows of a row group have nothing in a column; ``None`` where the file does not say."""
    parts = map(group.column, range(group.num_columns))
    found = next((part.statistics for part in parts if part.path_in_schema == leaf), None)
    return found.null_count if found is not None and found.has_null_count else None


def _read_file(number: int, shard: Path) -> tuple[pd.DataFrame, pd.DataFrame] | None:
    """Labels and places of a file's pictures; ``None`` if it has none."""
    with open_plain(shard) as handle:
        file = open_parquet(handle)
        schema, column = file.schema_arrow, _picture_column(file.schema_arrow)
        if column is None:
            return None
        groups = [file.metadata.row_group(group) for group in range(file.metadata.num_row_groups)]
    sizes = [group.num_rows for group in groups]
    if groups and all(_num_missing(group, column[1]) == group.num_rows for group in groups):
        return None  # `datasets` may have written where the pictures lie, and not the pictures
    others = [field.name for field in schema if field.name != column[0]]
    rows = pd.DataFrame(index=range(sum(sizes)))
    if others:
        rows = read_parquet(shard, others).astype(object)
    for name, words in _class_names(schema).items():
        if name in rows:
            rows[name] = [_word(words, value) for value in rows[name]]
    where = [(group, row) for group, size in enumerate(sizes) for row in range(size)]
    places = pd.DataFrame(where, columns=["group", "row"]).assign(
        shard=number, name=[f"{row:08d}" for row in range(len(where))]
    )
    return rows, places


def _class_names(schema: pa.Schema) -> Mapping[str, list[str]]:
    """Column => the names of its classes, of columns that ``datasets`` keeps as numbers."""
    try:
        features = parse_json((schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
        found = {name: feature["names"] for name, feature in features.items() if feature.get("_type") == "ClassLabel"}
    except (KeyError, TypeError, ValueError, AttributeError):  # of somebody else
        return {}
    return {name: words for name, words in found.items() if _are_words(words)}


def _word(words: Sequence[str], value: object) -> str | None:
    place = int(value) if isinstance(value, Integral) else -1
    return words[place] if 0 <= place < len(words) else None


def _are_words(words: Any) -> bool:
    return isinstance(words, list) and all(isinstance(word, str) for word in words)
