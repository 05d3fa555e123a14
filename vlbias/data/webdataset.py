"""WebDataset: tar shards in which files of one name belong together: ``0001.jpg``, ``0001.json``, ``0001.cls``.

The JSON of a picture is its row of labels, the number in ``.cls`` its ``label``. A shard's headers are read once; its
pictures are read from where they stand when they are asked for.
"""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

import pandas as pd

from vlbias.arguments import checked_call
from vlbias.data.files import MAX_COLUMNS
from vlbias.data.metadata import MAX_CELLS
from vlbias.data.packed import MAX_PICTURE_BYTES, PackedDataset, shards_of, unpacked
from vlbias.data.table import Problem
from vlbias.errors import DatasetError, ImageError
from vlbias.files import is_text, open_plain, parse_json
from vlbias.images import IMAGE_SUFFIXES

__all__ = ["WebDataset", "add_row", "load_webdataset"]

#: The longest JSON of a picture, header of a file in a shard, and number of a class.
MAX_LABEL_BYTES, MAX_HEADER_BYTES, MAX_CLASS_BYTES = 2**20, 2**20, 20
#: What tarfile raises for a damaged header.
_DAMAGE = (tarfile.TarError, OSError, ValueError, OverflowError, RecursionError, EOFError)


@dataclass(frozen=True, repr=False, eq=False)
class WebDataset(PackedDataset):
    """Faces in tar shards; ``places`` has ``offset`` and ``num_bytes``."""

    def _bytes(self, item: str) -> bytes:
        shard = self._shard(item)
        try:
            with open_plain(shard) as file:
                return os.pread(file.fileno(), self._place(item, "num_bytes"), self._place(item, "offset"))
        except OSError as error:
            raise ImageError(f"{shard} cannot be read ({error.strerror or error}). Fetch it again.") from error


@dataclass
class _Found:
    """What the shards hold, so far."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    places: list[tuple[int, str, int, int]] = field(default_factory=list)
    columns: set[str] = field(default_factory=set)
    problems: list[Problem] = field(default_factory=list)

    def add(self, row: dict[str, Any], place: tuple[int, str, int, int], shard: Path) -> None:
        self.rows.append(row)
        self.places.append(place)
        self.columns.update(row)
        if len(self.columns) > MAX_COLUMNS or len(self.rows) * len(self.columns) > MAX_CELLS:
            raise DatasetError(
                f"{shard}: {len(self.rows):,} pictures with {len(self.columns):,} labels are more than is read, "
                f"{MAX_COLUMNS:,} labels and {MAX_CELLS:,} cells. Leave out what is not a label, or give fewer shards."
            )


@checked_call
def load_webdataset(
    root: str | os.PathLike[str],
    *,
    attributes: Sequence[str] | None = None,
    unsplit: str = "hash",
    follow_links: bool = False,
) -> WebDataset:
    """Read tar shards; no picture is decoded, and nothing is unpacked.

    Args:
        root: a folder of ``.tar`` files, one of them, or a pattern such as ``shards/train-*.tar``.
        attributes: columns that are labels; ``None`` for all.
        unsplit: split of pictures for which neither their JSON nor the name of their shard says one, as for
            ``load_folder``.
        follow_links: whether shards may be links. Links inside of a shard are never gone along.

    Returns:
        Ids are the ``file_name`` of the JSON, else the shard and the name in it. What is no plain file, too large, cut
        off or without a picture stands in ``problems``.

    Raises:
        DatasetError: no shard, a shard that is damaged, or no picture with labels.
        LabelError: a split of an unknown name. UnknownNameError: no such column.
    """
    packing = shards_of(root, {".tar"}, follow_links=follow_links)
    found = _Found(problems=packing.problems)
    for number, shard in enumerate(packing.shards):
        with open_plain(shard) as file:
            _read_shard(file, number, shard, found)
    if not any(found.columns):
        raise DatasetError(
            f"{root} is an archive without labels (a .json or .cls beside each picture). Unpack it first: "
            f"tar -xf {packing.shards[0]}"
        )
    rows = pd.DataFrame({name: _column(found.rows, name) for name in sorted(found.columns)})
    places = pd.DataFrame(found.places, columns=["shard", "name", "offset", "num_bytes"])
    return unpacked(WebDataset, packing, rows, places, unsplit=unsplit, attributes=attributes)


def _column(rows: list[dict[str, Any]], name: str) -> pd.Series:
    return pd.Series([row.get(name) for row in rows], dtype=object, name=name)


def _read_shard(file: BinaryIO, number: int, shard: Path, found: _Found) -> None:
    """Add the pictures of a shard: files that follow each other with one name before their first dot."""
    key: str | None = None
    parts: dict[str, tarfile.TarInfo] = {}
    for member in chain(_members(file, shard, found.problems), [None]):
        this, _, ending = _key(member.name) if member is not None else (None, "", "")
        if member is None or this != key:
            if key is not None:
                _add(file, number, shard, key, parts, found)
            key, parts = this, {}
        if member is None or member.isdir():
            continue
        problem = _problem(file, member)
        if problem is not None:
            found.problems.append(Problem(f"{shard.name}: {member.name!r:.80}", *problem))
        elif ending:
            parts.setdefault(f".{ending.lower()}", member)


def _key(name: str) -> tuple[str, str, str]:
    """A name in a shard as (key, dot, ending): all before the first dot of its last part, and all behind."""
    folder, slash, last = name.rpartition("/")
    key, dot, ending = last.partition(".")
    return f"{folder}{slash}{key}", dot, ending


class _Headers:
    """A shard for ``tarfile``, which reads headers as long as they say they are."""

    def __init__(self, file: BinaryIO, shard: Path):
        self._file, self._shard = file, shard
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= MAX_HEADER_BYTES:
            raise DatasetError(f"{self._shard} has a header of {size:,} bytes and is not read. Write the shard anew.")
        return self._file.read(size)


def _members(file: BinaryIO, shard: Path, problems: list[Problem]) -> Iterator[tarfile.TarInfo]:
    """The files of a shard, one after another; their contents are passed over.

    One that is damaged behind its first files ends there, which is added to the problems.

    Raises:
        DatasetError: it is damaged from the start, or in a way that nobody makes by mistake.
    """
    last = -1
    try:
        with tarfile.TarFile(fileobj=_Headers(file, shard), mode="r") as archive:  # type: ignore[arg-type]
            while (member := archive.next()) is not None:
                if member.offset_data <= last or member.size < 0:  # or it would go round in a circle
                    raise DatasetError(f"{shard} is damaged: a file in it stands before the one before it.")
                last = member.offset_data
                archive.members = []  # type: ignore[attr-defined]  # tarfile keeps them all
                yield member
            if any(os.pread(file.fileno(), tarfile.BLOCKSIZE, archive.offset)):  # tarfile takes it for the end
                problems.append(Problem(shard.name, "damaged_shard", f"damaged at byte {archive.offset:,}"))
    except _DAMAGE as error:
        if last >= 0:
            problems.append(Problem(shard.name, "damaged_shard", f"damaged or cut off behind byte {last:,} ({error})"))
            return
        raise DatasetError(f"{shard} is not a tar file, or is damaged ({error}). Fetch it again.") from error


def _problem(file: BinaryIO, member: tarfile.TarInfo) -> tuple[str, str] | None:
    """Why a file of a shard is not used, as (code, detail); ``None`` if it is."""
    if not is_text(member.name):
        return "no_file", "its name is not text in UTF-8"
    if member.issym() or member.islnk():
        return "link", "a link inside of a shard; it is not gone along"
    if not member.isreg() or member.issparse():
        return "no_file", "no plain file"
    if member.size > MAX_PICTURE_BYTES:
        return "unreadable_image", f"{member.size:,} bytes; at most {MAX_PICTURE_BYTES:,} are read"
    if member.offset_data + member.size > os.fstat(file.fileno()).st_size:
        return "unreadable_image", "the shard is cut off"
    return None


def _add(file: BinaryIO, number: int, shard: Path, key: str, parts: dict[str, tarfile.TarInfo], found: _Found) -> None:
    """Add one picture with its labels."""
    where = f"{shard.name}: {key!r:.80}"
    suffix = next((suffix for suffix in parts if suffix in IMAGE_SUFFIXES), None)
    if suffix is None:
        if parts:
            found.problems.append(Problem(where, "missing_image", f"labels without a picture ({', '.join(parts):.80})"))
        return
    try:
        row = _labels(file, parts)
    except ValueError as error:
        found.problems.append(Problem(where, "malformed_line", str(error)[:200]))
        return
    picture = parts[suffix]
    found.add(row, (number, f"{key}{suffix}", picture.offset_data, picture.size), shard)


def _labels(file: BinaryIO, parts: dict[str, tarfile.TarInfo]) -> dict[str, Any]:
    """The row of a picture: its JSON, and its class.

    Raises:
        ValueError: they cannot be read.
    """
    row: dict[str, Any] = {}
    if ".json" in parts:
        values = parse_json(_content(file, parts[".json"], MAX_LABEL_BYTES))
        if not isinstance(values, dict):
            raise ValueError(f"its .json contains a {type(values).__name__}, no object {{...}}")
        row = {str(name).strip(): value for name, value in values.items()}
    if ".cls" in parts:
        row.setdefault("label", int(_content(file, parts[".cls"], MAX_CLASS_BYTES)))
    return row


def _content(file: BinaryIO, member: tarfile.TarInfo, at_most: int) -> bytes:
    if member.size > at_most:
        raise ValueError(f"its labels take {member.size:,} bytes; at most {at_most:,} are read")
    return os.pread(file.fileno(), member.size, member.offset_data)


# -- writing ----------------------------------------------------------------------------------------------------------


def add_row(
    archive: tarfile.TarFile, place: int, labels: Mapping[str, Any], picture: bytes | None, suffix: str
) -> None:
    """Write one picture beside its row of labels, named by their place; no time, no user.

    Args:
        archive: the shard, in the format USTAR.
        place: a number that no other row of the shard has.
        labels: values as JSON has them.
        picture: the bytes of its file; ``None`` for a row without one.
        suffix: the ending of the file, with the dot.
    """
    if picture is not None:
        _add_file(archive, f"{place:09d}{suffix}", picture)
    _add_file(archive, f"{place:09d}.json", json.dumps(labels, ensure_ascii=False).encode())


def _add_file(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(data), 0o644
    archive.addfile(member, io.BytesIO(data))
