"""A finished imagefolder as shards: tar files (WebDataset) or Parquet, the same bytes for the same pictures.

Shards are written from pictures that are in place already, each appears whole, and the loose pictures go when all of
them are there; so a run that is killed on the way goes on, and ends with the same bytes.
"""

from __future__ import annotations

import json
import shutil
import tarfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from vlbias.balance.run_folder import RunFolder
from vlbias.data.metadata import arrow_schema, read_metadata, stored_table
from vlbias.data.packed import INDEX_FILE, read_index
from vlbias.data.recognise import packed_set
from vlbias.data.webdataset import add_row
from vlbias.errors import ConfigError, DatasetError
from vlbias.progress import Progress

__all__ = [
    "SUFFIXES",
    "Publish",
    "check_format",
    "features_of",
    "is_packed",
    "loosen",
    "pack",
    "summary_of_shards",
    "unpack_done",
]

#: Formats of shards, and how their names end.
SUFFIXES = {"webdataset": ".tar", "parquet": ".parquet"}
Publish = Callable[[str], object]
#: Pictures of a Parquet row group: what a reader holds at a time.
_GROUP_ROWS = 64


class _Shard(NamedTuple):
    """One file of the output.

    Attributes:
        name: below the output, with slashes.
        split: of its pictures.
        rows: of the metadata, in the types that are stored.
    """

    name: str
    split: str
    rows: pd.DataFrame


def check_format(wanted: str, originals: str) -> None:
    """Refuse links to originals in shards, which hold bytes.

    Raises:
        ConfigError: says what goes together.
    """
    if wanted != "imagefolder" and originals == "link":
        raise ConfigError(
            f"originals='link' (--originals link) leaves pictures where they are, and {wanted} shards hold them. Use "
            "originals='copy', or format='imagefolder'."
        )


def is_packed(run: RunFolder, review: str = "") -> bool:
    """Whether all shards of a run are in place, as people left it: ``review`` is the digest of what they refused."""
    try:
        index = read_index(run.out / INDEX_FILE)
        there = all((run.out / "data" / shard["name"]).is_file() for shard in index["shards"])
        return there and index.get("review", "") == review
    except (DatasetError, KeyError, TypeError):
        return False


def loosen(run: RunFolder) -> None:
    """Put the pictures of a finished run beside its shards again, to be packed otherwise."""
    faces = packed_set(run.out)
    for item in [] if faces is None else faces.ids:
        assert faces is not None
        run.put(faces.file(item).data, run.out / item)


def pack(
    run: RunFolder,
    wanted: str,
    shard_size: int,
    bar: Progress,
    *,
    review: str = "",
    publish: Publish = lambda name: None,
) -> None:
    """Write the shards of a run whose pictures and ``metadata.csv`` are in place, then an index of them.

    Args:
        run: the output folder.
        wanted: ``webdataset`` or ``parquet``.
        shard_size: pictures of a shard, >= 1.
        bar: progress, in pictures.
        review: see :func:`is_packed`.
        publish: told the name of each shard when it is in place.
    """
    if (run.out / INDEX_FILE).is_file():  # of an older review, or some of its shards are lost
        for stale in (run.out / "data").glob(f"*{SUFFIXES[wanted]}"):
            stale.unlink()
        (run.out / INDEX_FILE).unlink()
    typed, kinds = stored_table(read_metadata(run.out / "metadata.csv"))
    write = {"webdataset": _write_tar, "parquet": _write_parquet}[wanted]
    entries = []
    for shard in _shards(typed, wanted, shard_size):
        path = run.out / shard.name
        if not path.is_file():
            with run.draft(path) as file:
                write(file, shard.rows, kinds, run.out)
        publish(shard.name)
        bar.update(len(shard.rows))
        entries.append({"name": path.name, "split": shard.split, "num_pictures": len(shard.rows)})
    index = {"format": wanted, "columns": kinds, "shards": entries} | ({"review": review} if review else {})
    run.put((json.dumps(index, indent=1, ensure_ascii=False) + "\n").encode(), run.out / INDEX_FILE)


def unpack_done(run: RunFolder) -> None:
    """Remove the loose pictures of a run whose shards are in place."""
    for shard in read_index(run.out / INDEX_FILE)["shards"]:
        shutil.rmtree(run.out / shard["split"], ignore_errors=True)


def summary_of_shards(table: pd.DataFrame, shard_size: int) -> dict[str, Any]:
    """What a report says of the shards of a metadata table.

    Returns:
        ``num_files`` by split, ``columns`` with their types, and the ``endings`` of the pictures without the dot.
    """
    endings = sorted({Path(name).suffix.lower().removeprefix(".") for name in table["file_name"]})
    return {"num_files": _num_shards(table, shard_size), "columns": stored_table(table)[1], "endings": endings}


def features_of(shards: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Columns that ``datasets`` finds in tar shards; by itself it would guess them from the first few pictures."""
    row = [{"name": field.name, "dtype": _DTYPES[str(field.type)]} for field in arrow_schema(shards["columns"])]
    pictures = [{"name": ending, "dtype": "image"} for ending in shards["endings"]]
    texts = [{"name": name, "dtype": "string"} for name in ("__key__", "__url__")]
    return [*pictures, {"name": "json", "struct": row}, *texts]


def _num_shards(table: pd.DataFrame, shard_size: int) -> dict[str, int]:
    counts = table["split"].value_counts(sort=False).to_dict()
    return {str(split): -(-int(count) // shard_size) for split, count in counts.items()}


def _shards(typed: pd.DataFrame, wanted: str, shard_size: int) -> Iterator[_Shard]:
    for split, count in sorted(_num_shards(typed, shard_size).items()):
        part = typed[typed["split"] == split]
        for number in range(count):
            name = f"{number:06d}" if wanted == "webdataset" else f"{number:05d}-of-{count:05d}"
            rows = part.iloc[number * shard_size : (number + 1) * shard_size]
            yield _Shard(f"data/{split}-{name}{SUFFIXES[wanted]}", split, rows)


# -- tar --------------------------------------------------------------------------------------------------------------


def _write_tar(file: BinaryIO, rows: pd.DataFrame, kinds: Mapping[str, str], out: Path) -> None:
    """Pictures with their rows as JSON, named by their place in the table; no time, no user."""
    with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for place, row in zip(rows.index, rows.itertuples(index=False, name=None), strict=True):
            labels = {name: _plain(value) for name, value in zip(kinds, row, strict=True)}
            path = out / str(labels["file_name"])
            add_row(archive, place, labels, path.read_bytes(), path.suffix.lower())


def _plain(value: object) -> Any:
    """A cell as JSON has it."""
    if pd.isna(value):  # type: ignore[call-overload]  # cells hold single values
        return None
    return value.item() if hasattr(value, "item") else value


# -- Parquet ----------------------------------------------------------------------------------------------------------


def _write_parquet(file: BinaryIO, rows: pd.DataFrame, kinds: Mapping[str, str], out: Path) -> None:
    """A column ``image`` of ``{bytes, path}`` before the labels, as ``datasets`` writes and shows it."""
    image = pa.field("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    labels = arrow_schema(kinds)
    features = {"image": {"_type": "Image"}}
    features |= {field.name: {"dtype": _DTYPES[str(field.type)], "_type": "Value"} for field in labels}
    note = {"huggingface": json.dumps({"info": {"features": features}})}
    schema = pa.schema([image, *labels], metadata=note)
    with pq.ParquetWriter(file, schema, compression={"image.bytes": "none"}, use_dictionary=list(kinds)) as writer:
        for start in range(0, len(rows), _GROUP_ROWS):
            part = rows.iloc[start : start + _GROUP_ROWS]
            pictures = [
                {"bytes": (out / str(name)).read_bytes(), "path": Path(str(name)).name} for name in part["file_name"]
            ]
            columns = pa.Table.from_pandas(part, schema=labels, preserve_index=False).columns
            writer.write_table(pa.Table.from_arrays([pa.array(pictures, type=image.type), *columns], schema=schema))


_DTYPES = {"bool": "bool", "int64": "int64", "double": "float64", "string": "string"}
