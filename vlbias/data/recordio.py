"""Training sets of InsightFace (MS1M and its relatives) as MXNet packs them: all pictures in one file.

train.rec     records: a magic number, a length, a header with the label, the bytes of a JPEG
train.idx     "key<TAB>offset" of each record
property      "85742,112,112": people, height, width

Record 0 may be a table of contents: keys 1..n-1 are pictures, keys n..m-1 say which pictures each person has.
"""

from __future__ import annotations

import bisect
import math
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from PIL import Image

from vlbias.arguments import checked_call
from vlbias.data.files import fields_of, is_number, read_text, refuse_link
from vlbias.data.people import split_of_person
from vlbias.data.table import FaceDataset, Problem, Problems
from vlbias.errors import DatasetError, ImageError
from vlbias.images import decode_image
from vlbias.shown import printable

__all__ = ["RecordDataset", "find_records", "load_recordio"]

_MAGIC = 0xCED7230A
_START = struct.Struct("<II")  # magic number; part of a record (3 bits) and length (29 bits)
_HEADER = struct.Struct("<IfQQ")  # number of labels (0: one, in the next field), label, id, id
#: No face picture is larger; a damaged offset reads as any length.
MAX_RECORD_BYTES = 2**26
#: Of an index, and lines of it: the largest set has 5.8 million records.
MAX_INDEX_BYTES, MAX_RECORDS = 2**27, 10_000_000


class _Record(NamedTuple):
    labels: tuple[float, ...]
    is_list: bool  # whether the labels stand behind the header, as in a table of contents
    data: bytes


@dataclass(frozen=True, repr=False, eq=False)
class RecordDataset(FaceDataset):
    """Faces that stand in one file of records; the column ``offset`` says where."""

    record_file: Path | None = None

    def path(self, item: str) -> Path | None:
        """``None``: a picture has no file of its own."""
        self._require([item])
        return None

    def reason(self, item: str, error: Exception) -> str:
        """What is wrong with a record, without where on the disk its file lies."""
        assert self.record_file is not None
        return str(error).replace(printable(self.record_file), printable(self.record_file.name))

    def image(self, item: str) -> Image.Image:
        """One face, upright RGB in its own size.

        Raises:
            UnknownNameError: no such id.
            ImageError: its record is damaged.
        """
        self._require([item])
        assert self.record_file is not None
        name = f"{self.record_file}, record {item}"
        try:
            with self.record_file.open("rb", buffering=0) as file:
                record = _read_record(file.fileno(), int(self.table["offset"].loc[item]))
        except (OSError, DatasetError) as error:
            raise ImageError(f"{name} cannot be read ({error}). Fetch the file again.") from error
        return decode_image(record.data, name)


def find_records(root: Path) -> tuple[Path, Path] | None:
    """(``.rec``, ``.idx``) of a folder; ``train`` where there are several; ``None`` if it has none."""
    pairs = [(path, path.with_suffix(".idx")) for path in sorted(root.glob("*.rec"))]
    pairs = [pair for pair in pairs if pair[1].is_file()]
    return next((pair for pair in pairs if pair[0].stem == "train"), pairs[0] if pairs else None)


@checked_call
def load_recordio(root: str | os.PathLike[str], *, follow_links: bool = False) -> FaceDataset:
    """Read a training set of records; no picture is decoded.

    Args:
        root: the folder with ``train.rec`` and ``train.idx``.
        follow_links: whether they may be links.

    Returns:
        ``identity``, the number that the records have; a tenth of the people is val and a tenth is test, by a hash of
        it. Ids are the keys of the records. Lines of the index that cannot be used, records that are damaged and
        another number of people than ``property`` says stand in ``problems``.

    Raises:
        DatasetError: no records, or none of them can be used.
    """
    root = Path(root)
    found = find_records(root)
    if found is None:
        raise DatasetError(f"{root} has no pair of a .rec and an .idx file, such as train.rec and train.idx.")
    record_file, index_file = (refuse_link(path, follow_links=follow_links) for path in found)
    offsets, problems = _read_index(index_file, record_file.stat().st_size)
    with record_file.open("rb", buffering=0) as file:
        labels, more = _labels(file.fileno(), offsets, record_file.name)
    problems += more
    if not labels:
        raise DatasetError(f"{record_file} has no record that can be used ({len(problems)} problems).")
    people = [str(label) for label in labels.values()]
    keys = [str(key) for key in labels]
    table = pd.DataFrame(
        {
            "file_name": [f"{key}.jpg" for key in keys],
            "split": [split_of_person(person) for person in people],
            "identity": pd.array(people, dtype="str"),
            "offset": [offsets[key] for key in labels],
        },
        index=pd.Index(keys, name="id"),
    )
    problems += _compare_people(refuse_link(root / "property", follow_links=follow_links), len(set(people)))
    return RecordDataset(
        root.resolve().name, table, attributes=["identity"], problems=problems, record_file=record_file
    )


def _read_index(path: Path, num_bytes: int) -> tuple[dict[int, int], list[Problem]]:
    """Key => offset, in the order of the keys."""
    offsets: dict[int, int] = {}
    problems = Problems()
    for number, fields in fields_of(read_text(path, max_bytes=MAX_INDEX_BYTES, max_lines=MAX_RECORDS)):
        if len(fields) != 2 or not all(map(is_number, fields)):
            detail = f"expected 'key offset', got '{' '.join(fields)[:80]}'"
        elif int(fields[0]) in offsets:
            detail = f"the key {fields[0]} appears twice"
        elif int(fields[1]) + _START.size > num_bytes:
            detail = f"offset {fields[1]} lies behind the end of the records ({num_bytes:,} bytes)"
        else:
            offsets[int(fields[0])] = int(fields[1])
            continue
        problems.append(Problem(f"{path.name}:{number}", "malformed_line", detail))
    return dict(sorted(offsets.items())), problems


def _read_record(file: int, offset: int, at_most: int = MAX_RECORD_BYTES) -> _Record:
    """One record; parts that were split where their bytes looked like the magic number are joined again.

    Raises:
        DatasetError: no record begins there, or it is cut off.
    """
    parts: list[bytes] = []
    while True:
        start = os.pread(file, _START.size, offset)
        magic, word = _START.unpack(start) if len(start) == _START.size else (0, 0)
        part, length = word >> 29, word & (2**29 - 1)
        if magic != _MAGIC or length > MAX_RECORD_BYTES:
            raise DatasetError(f"no record begins at byte {offset:,}")
        data = os.pread(file, min(length, at_most), offset + _START.size)
        if len(data) < min(length, at_most):
            raise DatasetError(f"the record at byte {offset:,} is cut off")
        parts.append(data)
        if part in (0, 3) or at_most < length:
            return _unpack(struct.pack("<I", _MAGIC).join(parts))
        offset += _START.size + (length + 3) // 4 * 4


def _unpack(data: bytes) -> _Record:
    if len(data) < _HEADER.size:
        raise DatasetError("a record is shorter than its header")
    count, label, *_ = _HEADER.unpack_from(data)
    stop = _HEADER.size + 4 * count
    values = np.frombuffer(data[_HEADER.size : stop], "<f4").tolist() if count else [label]
    if count and len(values) < count:
        raise DatasetError("a record is shorter than its labels")
    return _Record(tuple(values), count > 0, data[stop:])


def _labels(file: int, offsets: dict[int, int], name: str) -> tuple[dict[int, int], list[Problem]]:
    """Key of each picture => number of its person. A table of contents spares a look at every picture."""
    problems = Problems()

    def read(key: int) -> _Record | None:
        try:
            # enough for the header of a picture and for both numbers of a person
            return _read_record(file, offsets[key], at_most=64)
        except DatasetError as error:
            problems.append(Problem(f"{name}, record {key}", "unreadable_image", str(error)))
            return None

    def person_of(record: _Record, key: int) -> dict[int, int]:
        if math.isfinite(record.labels[0]):
            return {key: int(record.labels[0])}
        problems.append(Problem(f"{name}, record {key}", "malformed_record", f"its label is {record.labels[0]}"))
        return {}

    contents = read(0) if 0 in offsets else None
    pictures = list(offsets)
    labels: dict[int, int] = {}
    if contents is not None and contents.is_list and len(contents.labels) >= 2:
        end, last = contents.labels[:2]
        pictures = [key for key in offsets if 1 <= key < end]
        for key in (key for key in offsets if end <= key < last):
            person = read(key)
            if person is None or not person.is_list or len(person.labels) < 2:
                continue
            first, stop = person.labels[:2]
            # of the keys that there are: what is said may be any number
            keys = pictures[bisect.bisect_left(pictures, first) : bisect.bisect_left(pictures, stop)]
            sample = read(keys[0]) if keys else None
            if sample is not None and person_of(sample, keys[0]):
                labels.update(dict.fromkeys(keys, int(sample.labels[0])))
    for key in pictures:
        if key not in labels and (record := read(key)) is not None:
            labels |= person_of(record, key)
    return dict(sorted(labels.items())), problems


def _compare_people(path: Path, num_people: int) -> list[Problem]:
    """What ``property`` says of the number of people; the file may be absent."""
    if not path.is_file():
        return []
    said = read_text(path).strip().split(",")[0]
    if not is_number(said):
        return [Problem(path.name, "malformed_line", f"expected 'people,height,width', got '{said[:40]}'")]
    if int(said) != num_people:
        return [Problem(path.name, "other_count", f"{num_people:,} people in the records; it says {int(said):,}")]
    return []
