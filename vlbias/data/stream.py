"""A stream of faces, kept as tar shards: it is read once, in its order, and never in memory whole.

A plan counts the labels of all pictures and asks for donors out of order, which no stream can give.
"""

from __future__ import annotations

import itertools
import json
import re
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from PIL import Image

from vlbias.arguments import checked_call
from vlbias.data.packed import INDEX_FILE, suffix_of
from vlbias.data.webdataset import WebDataset, add_row, load_webdataset
from vlbias.errors import CheckpointError, ConfigError, DatasetError, ImageError, OutputError
from vlbias.files import AnyPath, json_value, make_folder, new_file, read_object, write_json
from vlbias.originals import Original
from vlbias.progress import Progress, track
from vlbias.settings import checked_number

__all__ = ["Stream", "keep_stream"]

#: Rows of pictures and labels, in an order that is the same each time.
Stream: TypeAlias = Iterable[Mapping[str, Any]]

#: Beside the shards: what was asked for.
_ASKED = ".stream.json"
#: A split whose name can be that of a file.
_SPLIT_NAME = re.compile(r"[A-Za-z0-9_]{1,64}")


@checked_call
def keep_stream(
    rows: Any,
    folder: AnyPath,
    *,
    picture: str = "image",
    shard_size: int = 1000,
    limit: int | None = None,
    show_progress: bool = True,
) -> WebDataset:
    """Read a stream to its end, and keep its pictures and labels as tar shards.

    Args:
        rows: mappings of a picture and its labels, such as ``datasets.load_dataset(..., streaming=True)`` gives; or
            split => such rows. A key ``split`` says the split of a row.
        folder: new, empty, or of this same stream: one that was stopped goes on behind its last whole shard, where the
            stream gives the same rows again.
        picture: key of the picture: the bytes of a file, ``{"bytes": ...}``, a PIL image or uint8 (h, w, 3), (h, w).
            The last two are written as PNG. All other keys are labels.
        shard_size: rows of a shard, >= 1.
        limit: most rows of a split, >= 1; ``None`` for all.
        show_progress: a progress line on stderr.

    Returns:
        The dataset in the shards; rows without a picture stand in its ``problems``.

    Raises:
        ConfigError: ``rows`` is no stream, a setting out of range, or a split whose name no file can have.
        OutputError: the folder holds something else, or cannot be written.
        DatasetError: a row that is no mapping, no picture in all of them, or an ``OSError`` of the stream; its other
            errors are left as they are.
    """
    checked_number("shard_size", shard_size, int, low=1)
    if limit is not None:
        checked_number("limit", limit, int, low=1)
    splits = rows if isinstance(rows, Mapping) else {"": rows}
    for name, stream in splits.items():
        if not isinstance(stream, Iterable) or isinstance(stream, str | bytes):
            raise ConfigError(f"`rows` must be rows of pictures and labels, or split => such rows; got {stream!r:.60}.")
        if name != "" and not (isinstance(name, str) and _SPLIT_NAME.fullmatch(name)):
            raise ConfigError(f"a split cannot be called {name!r:.80}: letters, digits and _ alone. Rename it.")
    out = Path(folder)
    asked = {"picture": picture, "shard_size": shard_size, "limit": limit, "splits": [str(name) for name in splits]}
    _open_folder(out, asked)
    if not (out / INDEX_FILE).is_file():
        entries: list[dict[str, Any]] = []
        with track(None, "reading the stream", "rows", show=show_progress) as bar:
            for name, stream in splits.items():
                entries += _keep_split(str(name), stream, out, picture, shard_size, limit, bar)
        if not any(_has_picture(out / "data" / str(entry["name"])) for entry in entries):
            raise DatasetError(
                f"no row of the stream has a picture under '{picture}' ({bar.done:g} rows). Say which key it is, as "
                "picture=..."
            )
        write_json(out / INDEX_FILE, {"format": "webdataset", "columns": {}, "shards": entries})
    return load_webdataset(out)


def _open_folder(out: Path, asked: Mapping[str, object]) -> None:
    """Begin a folder, or find that it is of the same stream.

    Raises:
        OutputError: it holds something else.
    """
    make_folder(out / "data")
    begun = out / _ASKED
    if not begun.is_file():
        if any((out / "data").iterdir()) or [entry.name for entry in out.iterdir()] != ["data"]:
            raise OutputError(f"{out} holds other files. Give a new folder for what comes of the stream.")
        write_json(begun, asked)
        return
    try:
        before = read_object(begun)
    except CheckpointError as error:
        raise OutputError(f"{error} Remove {out} to read the stream anew.") from error
    if before != asked:
        name = next((name for name in asked if before.get(name) != asked[name]), "splits")
        raise OutputError(
            f"{out} is of a stream that was read with {name}={before.get(name)!r:.80}, not {asked[name]!r:.80}. Give "
            "another folder."
        )


def _keep_split(
    split: str, stream: Stream, out: Path, picture: str, shard_size: int, limit: int | None, bar: Progress
) -> list[dict[str, Any]]:
    """Write the shards of a split that are not there; what the index says of all of them."""

    def path_of(number: int) -> Path:
        return out / "data" / f"{split or 'rows'}-{number:06d}.tar"

    there = next(number for number in itertools.count() if not path_of(number).is_file())
    done = there * shard_size
    bar.resume_at(bar.done + done)
    rows = itertools.islice(_behind(stream, done), None if limit is None else max(limit - done, 0))
    number = there
    for first in rows:
        part = itertools.chain([first], itertools.islice(rows, shard_size - 1))
        with (
            new_file(path_of(number)) as file,
            tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar,
        ):
            for place, row in enumerate(part):
                _write(tar, place, row, picture, where=f"row {number * shard_size + place} of the stream")
                bar.update(1)
        number += 1
    return [{"name": path_of(place).name, "split": split} for place in range(number)]


def _has_picture(shard: Path) -> bool:
    with tarfile.open(shard) as archive:
        return any(not name.endswith(".json") for name in archive.getnames())


def _behind(stream: Stream, count: int) -> Iterator[Mapping[str, Any]]:
    """The rows behind the first ``count``; streams of ``datasets`` pass over these without reading their pictures."""
    first, rows = 0, stream
    if count and callable(skip := getattr(stream, "skip", None)):
        first, rows = count, skip(count)
    place = first
    try:
        for place, row in enumerate(rows, start=first):
            if place >= count:
                yield row
    except OSError as error:  # or it would be taken for one of the disk that is written to
        text = f"the stream broke off behind row {place} ({error}). The same call goes on behind the last whole shard."
        raise DatasetError(text) from error


def _write(archive: tarfile.TarFile, place: int, row: object, picture: str, *, where: str) -> None:
    """One row; its labels alone where it has no picture, which is then listed when the shards are opened."""
    if not isinstance(row, Mapping):
        raise DatasetError(f"{where} is a {type(row).__name__}, not a mapping of a picture and its labels.")
    labels = {str(name): _plain(value) for name, value in row.items() if name != picture}
    data, suffix = _picture(row.get(picture), where)
    add_row(archive, place, labels, data, suffix)


def _picture(value: Any, where: str) -> tuple[bytes | None, str]:
    """The file of a picture, and its ending; no bytes where there is none."""
    if isinstance(value, Mapping):
        value = value.get("bytes")
    if isinstance(value, bytes | bytearray | memoryview):
        data = bytes(value)
        return (data, suffix_of(data)) if data else (None, "")
    if isinstance(value, np.ndarray):
        if value.dtype != np.uint8 or value.ndim not in (2, 3):
            raise DatasetError(
                f"{where}: an array of {value.dtype} {value.shape} is no picture; expected uint8 (h, w, 3)."
            )
        value = Image.fromarray(value)
    if isinstance(value, Image.Image):
        try:
            original = Original.of_picture(value)
            return original.encode(original.stored).data, ".png"
        except (ImageError, OSError) as error:
            raise DatasetError(f"{where}: {error}") from error
    return None, ""


def _plain(value: Any) -> Any:
    """A label as JSON has it; what JSON has no word for is its text."""
    value = json_value(value)
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        return str(value)
    return value
