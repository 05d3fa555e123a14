"""Sets that Hugging Face ``datasets`` reads: streamed from the hub or from a folder, and kept as tar shards."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vlbias.arguments import checked_call
from vlbias.checkpoints import cache_folder
from vlbias.data.packed import MAX_PICTURE_BYTES
from vlbias.data.stream import Stream, keep_stream
from vlbias.data.webdataset import WebDataset, load_webdataset
from vlbias.errors import ConfigError, DatasetError, MissingDependencyError, unknown
from vlbias.files import sha256_json
from vlbias.hub import dataset_commit

__all__ = ["load_datasets"]

#: A set on the hub.
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?", re.ASCII)


@checked_call
def load_datasets(
    root: str | os.PathLike[str],
    *,
    config: str | None = None,
    picture: str | None = None,
    limit: int | None = None,
    attributes: Sequence[str] | None = None,
    unsplit: str = "hash",
) -> WebDataset:
    """Stream a set by the library ``datasets`` (extra ``datasets``), once, into the user's cache.

    All its splits are read, and named classes have their names. A stream that was stopped goes on where it was; a set
    that has changed since is read anew. ``datasets`` runs no code of the set.

    Args:
        root: a folder that is here, else a name on the hub, such as ``user/faces``.
        config: of the set, where it has several.
        picture: column of the pictures; ``None`` for the only one.
        limit: most rows of a split, >= 1; ``None`` for all.
        attributes: columns that are labels; ``None`` for all.
        unsplit: see ``load_folder``.

    Raises:
        DatasetError: no such set, one without pictures, or one that cannot be reached.
        UnknownNameError: no such column. ConfigError: several columns of pictures and none is named.
        MissingDependencyError: ``datasets`` is not there.
    """
    try:
        import datasets
    except ImportError as error:
        raise MissingDependencyError(f"{root} is read by `datasets`: pip install 'vlbias[datasets]'.") from error
    place = Path(root)
    name, here = str(root), place.is_dir()
    if not here and not _NAME.fullmatch(name):
        raise DatasetError(f"{name} is no folder here, and no name on the hub, such as user/faces.")
    try:
        version = _state(place) if here else dataset_commit(name)
        options: dict[str, Any] = {} if here else {"revision": version}
        splits = datasets.load_dataset(str(place.resolve()) if here else name, config, streaming=True, **options)
    except Exception as error:  # whatever its readers and the network raise
        raise DatasetError(f"`datasets` cannot read {name} ({type(error).__name__}: {error!s:.300}).") from error
    base = str(place.resolve()) if here else f"hf://datasets/{name}@"
    column = _picture_column(next(iter(splits.values())), picture, name)
    chosen = {str(split): _Rows(rows, column, base, name) for split, rows in splits.items()}
    key = sha256_json([base, version, config, column, limit])[:16]
    folder = cache_folder() / "streams" / key / (place.name or "set")
    keep_stream(chosen, folder, picture=column, limit=limit)
    return load_webdataset(folder, attributes=attributes, unsplit=unsplit)


def _picture_column(rows: Any, wanted: str | None, name: str) -> str:
    """The column of the pictures."""
    import datasets

    features = rows.features or dict.fromkeys(next(iter(rows), {}))  # of plain text no types are known
    pictures = [column for column, kind in features.items() if isinstance(kind, datasets.Image)]
    if wanted is not None and wanted not in pictures:
        raise unknown("column of pictures", wanted, pictures, where=name)
    if not pictures:
        raise DatasetError(f"{name} has no column of pictures, but {', '.join(features) or 'none at all'}.")
    if wanted is None and len(pictures) > 1:
        raise ConfigError(f"{name} has several columns of pictures: {', '.join(pictures)}. Name one: picture=...")
    return wanted or pictures[0]


class _Rows(Stream):
    """The rows of a split with their pictures as bytes, and the names of classes."""

    def __init__(self, rows: Any, column: str, base: str, name: str):
        import datasets

        self._column, self._base, self._name = column, base, name
        features = rows.features or {}
        self._classes = {key: kind for key, kind in features.items() if isinstance(kind, datasets.ClassLabel)}
        self._left = {key for key, kind in features.items() if isinstance(kind, datasets.Image)} - {column}
        self._rows = rows.cast_column(column, datasets.Image(decode=False))

    def skip(self, count: int) -> Iterator[Mapping[str, Any]]:
        """The rows behind the first ``count``, of which no picture is read."""
        return self._read(self._rows.skip(count))

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        return self._read(self._rows)

    def _read(self, rows: Any) -> Iterator[Mapping[str, Any]]:
        try:
            yield from map(self._row, rows)
        except Exception as error:
            raise DatasetError(
                f"{self._name} cannot be read on ({type(error).__name__}: {error!s:.300}). The same call goes on from "
                "here."
            ) from error

    def _row(self, row: Mapping[str, Any]) -> dict[str, Any]:
        found = {key: value for key, value in row.items() if key not in self._left and not key.startswith("__")}
        for key, kind in self._classes.items():
            if isinstance(found.get(key), int) and found[key] >= 0:  # -1 stands for no label
                found[key] = kind.int2str(found[key])
            else:
                found[key] = None
        return found | {self._column: self._bytes(row[self._column])}

    def _bytes(self, stored: Any) -> bytes | None:
        """The file of a picture that stands in a row, or beside it in the set's own folder; no other is opened."""
        from datasets.utils.file_utils import xopen

        stored = stored or {}
        if stored.get("bytes") is not None:
            return bytes(stored["bytes"])
        where = str(stored.get("path") or "")
        innermost = where.rpartition("::")[2]
        if not self._base.startswith("hf://"):
            inside = Path(innermost).is_absolute() and Path(innermost).resolve().is_relative_to(self._base)
        else:
            inside = innermost.startswith(self._base) and ".." not in innermost
        if not inside:
            return None
        with xopen(where, "rb") as file:
            data = bytes(file.read(MAX_PICTURE_BYTES + 1))
        return data if len(data) <= MAX_PICTURE_BYTES else None


def _state(place: Path) -> str:
    """What the files of a set were when it was read."""
    files = sorted(path for path in place.rglob("*") if path.is_file())
    stats = [(str(path), path.stat()) for path in files]
    return sha256_json([[name, stat.st_size, stat.st_mtime_ns] for name, stat in stats])
