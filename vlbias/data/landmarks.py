"""Landmarks that were found once: a small database in the user's cache, so that no photograph is searched twice.

A photograph is known by the SHA-256 of its file. Its name and time would be cheaper to ask for, but they change when a
dataset is copied or unpacked again, and stay when a picture is replaced by one of the same length; and to read a file
costs a fraction of what decoding it does.

Faces are kept as they were found, all of them: which one is taken, and how it is cut, is decided anew by each run.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np

from vlbias.alignment import DetectedFace
from vlbias.checkpoints.find import CACHE_VARIABLE, cache_folder
from vlbias.errors import OutputError, ShapeError
from vlbias.files import open_plain
from vlbias.sqlite import refuse_programs, refuse_side_files

__all__ = ["Found", "LandmarkCache", "landmarks_file", "rounded"]

#: Marks a database as one of ours ("vlbi"), in its header.
APPLICATION_ID = 0x766C6269

# Another layout of what is stored takes another name, so that versions of the library share a file.
_TABLE = "found_1"
#: Of a database; what is none and is called otherwise is somebody's own file and stays where it is.
_ENDINGS = (".sqlite", ".sqlite3", ".db")
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
# A kill loses what was found since the last write.
_WRITE_INTERVAL_S = 1.0
_NUM_VALUES = 4 + 1 + 2 * 5  # box, score, landmarks


@dataclass(frozen=True)
class Found:
    """What a detector found in one photograph.

    Attributes:
        photo_size: width and height of the upright photograph in pixels.
        faces: all of them, in any order.

    Raises:
        ShapeError: a size below one pixel.
    """

    photo_size: tuple[int, int]
    faces: list[DetectedFace]

    def __post_init__(self) -> None:
        if len(self.photo_size) != 2 or not all(isinstance(n, int) and n > 0 for n in self.photo_size):
            raise ShapeError(f"a photograph has a width and a height >= 1; got {self.photo_size}.")


def landmarks_file(path: str | os.PathLike[str] | None = None) -> Path:
    """The file that :class:`LandmarkCache` uses."""
    return Path(path) if path is not None else cache_folder() / "landmarks.sqlite"


def rounded(faces: Sequence[DetectedFace]) -> list[DetectedFace]:
    """Faces with coordinates to a hundredth of a pixel, as the cache gives them back.

    Finer digits differ between processors and say nothing.

    Raises:
        ShapeError: a box that is empty or turned, or a score outside of 0..1.
    """
    return [_face(_values(face)) for face in faces]


class LandmarkCache:
    """What detectors found in photographs; a context manager, which writes what is still to be written.

    Several processes may use one file at once. A damaged file is set aside (``.damaged`` is added to its name) and
    begun anew, damaged entries are as if they were not there; a warning says so.

    Args:
        path: the file, made with its folder if absent; ``None`` for ``landmarks.sqlite`` in the user's cache
            (``$VLBIAS_CACHE``). Where that cannot be written nothing is kept, and a warning says so.

    Raises:
        OutputError: ``path`` cannot be read or written, or is a database of something else.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None):
        self.path = landmarks_file(path)
        self._waiting: dict[tuple[str, str], str] = {}
        self._last_write_s = time.monotonic()
        self._num_damaged = 0
        try:
            self._database = self._open_sound()
        except OutputError as error:
            if path is not None:
                raise
            warnings.warn(f"{error} Landmarks are not kept for the next run.", stacklevel=2)
            self._database = _begin(":memory:")

    def get(self, photo: str, detector: str) -> Found | None:
        """What a detector found in a photograph; ``None`` if it is not known.

        Args:
            photo: SHA-256 of its file.
            detector: its name, with version and settings.
        """
        text = self._waiting.get((photo, detector)) or self._ask(photo, detector)
        if text is None:
            return None
        try:
            size, faces = json.loads(text)
            return Found(tuple(size), [_face(values) for values in faces])
        except (ValueError, TypeError):  # not JSON, or not what was stored
            self._num_damaged += 1
            return None

    def put(self, photo: str, detector: str, found: Found) -> None:
        """Keep what a detector found in a photograph; it is on disk within a second of further work.

        Raises:
            OutputError: the disk is full or was taken away.
        """
        self._waiting[photo, detector] = json.dumps([found.photo_size, [_values(face) for face in found.faces]])
        if time.monotonic() - self._last_write_s >= _WRITE_INTERVAL_S:
            self.write()

    def write(self) -> None:
        """Write what is waiting, in one transaction.

        Raises:
            OutputError: the disk is full or was taken away.
        """
        rows = [(*key, text) for key, text in self._waiting.items()]
        try:
            self._insert(rows)
        except sqlite3.DatabaseError as error:
            if not _is_damage(error):
                raise OutputError(f"{self.path} cannot be written ({error}). {_REMEDY}") from error
            self._begin_anew(error)
            self._insert(rows)
        self._waiting.clear()
        self._last_write_s = time.monotonic()

    def close(self) -> None:
        """Write what is waiting and let go of the file.

        Raises:
            OutputError: as :meth:`write`.
        """
        try:
            self.write()
        finally:
            self._database.close()
        if self._num_damaged:
            warnings.warn(
                f"{self.path}: {self._num_damaged} entries were damaged; those photographs are searched again.",
                stacklevel=2,
            )

    def __enter__(self) -> LandmarkCache:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- inside -------------------------------------------------------------------------------------------------------

    def _open_sound(self) -> sqlite3.Connection:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if self.path.exists():
                open_plain(self.path).close()
            refuse_side_files(self.path)
            return _begin(self.path)
        except sqlite3.DatabaseError as error:
            if not _is_damage(error):
                raise OutputError(f"{self.path} cannot be opened ({error}). {_REMEDY}") from error
            return self._set_aside(error)
        except OSError as error:
            raise OutputError(f"{self.path} cannot be opened ({error.strerror or error}). {_REMEDY}") from error

    def _ask(self, photo: str, detector: str) -> str | None:
        query = f"SELECT found FROM {_TABLE} WHERE photo = ? AND detector = ?"
        try:
            row = self._database.execute(query, (photo, detector)).fetchone()
        except sqlite3.DatabaseError as error:
            if not _is_damage(error):
                raise OutputError(f"{self.path} cannot be read ({error}). {_REMEDY}") from error
            self._begin_anew(error)
            return None
        return None if row is None else row[0]

    def _insert(self, rows: Sequence[tuple[str, str, str]]) -> None:
        if rows:
            with self._database:
                self._database.executemany(f"INSERT OR REPLACE INTO {_TABLE} VALUES (?, ?, ?)", rows)

    def _begin_anew(self, error: sqlite3.DatabaseError) -> None:
        self._database.close()
        self._database = self._set_aside(error)

    def _set_aside(self, error: sqlite3.DatabaseError) -> sqlite3.Connection:
        if error.sqlite_errorcode == sqlite3.SQLITE_NOTADB and self.path.suffix not in _ENDINGS:
            raise OutputError(f"{self.path} is not a file of landmarks. {_REMEDY}") from error
        aside = self.path.with_name(self.path.name + ".damaged")
        os.replace(self.path, aside)
        Path(f"{self.path}-journal").unlink(missing_ok=True)
        text = f"{self.path} is damaged ({error}); it was set aside as {aside.name} and begun anew."
        warnings.warn(text, stacklevel=2)
        return _begin(self.path)


_REMEDY = f"Name another file for the landmarks, or set ${CACHE_VARIABLE} to a folder that can be written."


def _begin(path: str | Path) -> sqlite3.Connection:
    """Open or make the database; raises sqlite3.DatabaseError."""
    database = sqlite3.connect(path, timeout=60)
    try:
        refuse_programs(database, path)
        tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master")}
        is_ours = database.execute("PRAGMA application_id").fetchone()[0] == APPLICATION_ID
        if tables and not is_ours:
            raise OutputError(f"{path} is not a file of landmarks. {_REMEDY}")
        if _TABLE not in tables:
            _make_table(database)
    except BaseException:
        database.close()
        raise
    return database


def _make_table(database: sqlite3.Connection) -> None:
    columns = "(photo TEXT, detector TEXT, found TEXT, PRIMARY KEY (photo, detector)) WITHOUT ROWID"
    with database:
        database.execute("BEGIN IMMEDIATE")
        database.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        database.execute(f"CREATE TABLE IF NOT EXISTS {_TABLE} {columns}")


def _is_damage(error: sqlite3.DatabaseError) -> bool:
    return getattr(error, "sqlite_errorcode", None) in _DAMAGED


def _values(face: DetectedFace) -> list[float]:
    places = [round(float(value), 2) for value in (*face.box, *face.landmarks.ravel())]
    return [*places[:4], round(float(face.score), 4), *places[4:]]


def _face(values: Sequence[float]) -> DetectedFace:
    """What :func:`_values` gave; ShapeError, a ValueError, for anything else."""
    numbers = np.asarray(values, dtype=float)
    if numbers.shape != (_NUM_VALUES,) or not np.isfinite(numbers).all():
        raise ShapeError(f"a face must be {_NUM_VALUES} finite numbers; got shape {numbers.shape}.")
    left, top, right, bottom, score = numbers[:5].tolist()
    if left >= right or top >= bottom or not 0 <= score <= 1:
        raise ShapeError(
            "a face needs a box with left < right and top < bottom and a score in 0..1; got "
            f"box {(left, top, right, bottom)}, score {score}."
        )
    return DetectedFace(numbers[5:].reshape(5, 2), (left, top, right, bottom), score)
