"""Long jobs that several processes share and that outlive a kill: one job per place, one line per finished piece.

A place that holds another job is refused, and the settings that differ are named. Records are only ever appended, so
what is finished stays finished; a last line that was cut off while it was being written counts as not written.
"""

from __future__ import annotations

import json
import os
import re
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from vlbias.errors import ConfigError
from vlbias.files import AnyPath, make_folder, open_plain, parse_json, refuse_links, writing
from vlbias.locks import FileLock

__all__ = ["RunStore", "cut_torn_line", "differences", "files_beside"]

#: Version of the header; a file of another version is refused.
FORMAT = 1
#: In the folder beside a store, so that the records of a run that was interrupted are those of one that was not.
TIMES_FILE = "times.jsonl"
_HASH = re.compile("[0-9a-f]{16,}")


def files_beside(path: AnyPath) -> Path:
    """The folder beside a store's file for what belongs to it: locks, checkpoints, pictures.

    Example:
        >>> files_beside("out/study.log").name
        'study.log.files'
    """
    path = Path(path)
    if not path.name:
        raise ConfigError(f"`storage` must be a file; '{path}' is a folder.")
    return path.with_name(f"{path.name}.files")


def differences(found: Mapping[str, object], wanted: Mapping[str, object], within: str = "") -> list[str]:
    """Settings in which two jobs differ, as phrases; values are compared as they come back from JSON.

    Example:
        >>> differences({"seed": 3, "fit": {"steps": 9}}, {"seed": 4, "fit": {"steps": 9}})
        ['`seed` is 3 there and 4 here']

    What is known by its hash alone comes last, without it.
    """
    found, wanted = json.loads(json.dumps(found)), json.loads(json.dumps(wanted))
    phrases, by_hash = [], []
    for key in sorted(set(found) | set(wanted)):
        there, here = found.get(key), wanted.get(key)
        if isinstance(there, dict) and isinstance(here, dict):
            phrases += differences(there, here, f"{within}{key}.")
        elif there != here and _is_hash(there) and _is_hash(here):
            by_hash.append(f"`{within}{key}` is another")
        elif there != here:
            phrases.append(f"`{within}{key}` is {there!r:.80} there and {here!r:.80} here")
    return phrases + by_hash


def _is_hash(value: object) -> bool:
    return isinstance(value, str) and _HASH.fullmatch(value) is not None


def cut_torn_line(path: AnyPath) -> None:
    """Remove what stands behind the last whole line of a file: a line that was cut off by a crash or a full disk.

    Call it while nobody else writes.
    """
    with open(path, "rb+") as file:
        if file.seek(0, os.SEEK_END) == 0:
            return
        file.seek(-1, os.SEEK_END)
        if file.read() != b"\n":
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1)


class RunStore:
    """Records by key, shared by workers.

    Who works on a key holds its file lock. A killed worker frees it at once, and somebody else takes the key up.

    Args:
        path: the file, made if absent; None keeps records in memory.
        kind: what kind of job it is, one word ("simulate").
        job: what workers must agree on, as plain values; kept in the file's first line.
        decode: makes of a stored record what :meth:`read` gives; a record at which it raises counts as not written.

    Raises:
        ConfigError: the file is something else, or of another job; what differs is named.
        OutputError: the file cannot be made, or is a link.
    """

    def __init__(
        self,
        path: AnyPath | None,
        kind: str,
        job: Mapping[str, object],
        decode: Callable[[dict[str, object]], dict[str, object]] = dict,
    ):
        self.path = Path(path) if path is not None else None
        self._decode = decode
        self._found: dict[str, dict[str, Any]] = {}
        self._times: dict[str, float] = {}
        # How far the file was read, and which file that was: records are only appended.
        self._read_to, self._inode = 0, -1
        if self.path is None:
            return
        make_folder(self.path.parent)
        if self.path.exists() and not self.path.is_file():
            raise ConfigError(f"`storage` must be a file; {self.path} is a folder, a pipe or a device.")
        refuse_links(self.path, files_beside(self.path))
        with FileLock(self._lock("file")), writing(self.path):
            if self.path.exists() and self.path.stat().st_size:
                _check_header(self.path, kind, job)
                cut_torn_line(self.path)
            else:
                self.path.write_bytes(_line({"vlbias": kind, "format": FORMAT, **job}))

    @property
    def folder(self) -> Path | None:
        """Beside the file, for locks and whatever else belongs to the job; None in memory."""
        return None if self.path is None else files_beside(self.path)

    def claim(self, key: str) -> FileLock | None:
        """The lock of a key that is neither done nor in another worker's hands; None otherwise.

        In memory every key that is not done is granted.
        """
        if self.path is None:
            return None if key in self._found else FileLock(os.devnull)
        lock = FileLock(self._lock(f"run-{zlib.crc32(key.encode()):08x}"))
        if not lock.acquire(wait=False):
            return None
        self._catch_up()
        if key in self._found:
            lock.release()
            return None
        return lock

    def add(self, key: str, record: Mapping[str, object], *, seconds: float | None = None) -> None:
        """Store what became of a key, as plain values; on return it is on the disk.

        Args:
            key: what was done.
            record: what became of it, the same whoever did it and when.
            seconds: how long it took, kept in a file of its own, see :meth:`times`.

        Raises:
            OutputError: the disk is full, or the file cannot be written.
        """
        if seconds is not None:
            self._times[key] = seconds
        if self.path is None:
            self._found[key] = self._decode(dict(record))
            return
        with FileLock(self._lock("file")), writing(self.path):
            if seconds is not None:
                _append(files_beside(self.path) / TIMES_FILE, {"run": key, "seconds": seconds})
            _append(self.path, {"run": key, **record})

    def times(self) -> dict[str, float]:
        """Seconds by key, of those for which they are known; lines that cannot be read are left out."""
        with suppress(OSError):
            lines = (files_beside(self.path) / TIMES_FILE).read_bytes().split(b"\n") if self.path else []
            for line in lines:
                with suppress(ValueError, KeyError, TypeError, AttributeError):
                    record = parse_json(line)
                    self._times[str(record["run"])] = float(record["seconds"])
        return dict(self._times)

    def read(self) -> dict[str, dict[str, Any]]:
        """Records by key; lines that are not whole are left out."""
        self._catch_up()
        return {key: dict(record) for key, record in self._found.items()}

    def _catch_up(self) -> None:
        """Read the whole lines that were appended since the last time, by whomever."""
        if self.path is None:
            return
        with open_plain(self.path) as file:
            status = os.fstat(file.fileno())
            if status.st_ino != self._inode or status.st_size < self._read_to:  # another file, or a shorter one
                self._found, self._inode, self._read_to = {}, status.st_ino, len(file.readline())
            file.seek(self._read_to)
            lines = file.read().split(b"\n")[:-1]
        self._read_to += sum(len(line) + 1 for line in lines)
        for line in lines:
            # Whatever is wrong with a line, its work is done again.
            with suppress(Exception):
                record = parse_json(line)
                key = str(record.pop("run"))
                self._found[key] = self._decode(record)

    def _lock(self, name: str) -> Path:
        assert self.path is not None
        return files_beside(self.path) / "locks" / f"{name}.lock"


def _append(path: Path, values: Mapping[str, object]) -> None:
    path.touch()
    cut_torn_line(path)  # what a killed writer left of its line must not swallow this one
    with path.open("ab") as file:
        file.write(_line(values))
        file.flush()
        os.fsync(file.fileno())


def _line(values: Mapping[str, object]) -> bytes:
    return json.dumps(values).encode() + b"\n"


def _check_header(path: Path, kind: str, job: Mapping[str, object]) -> None:
    try:
        with open_plain(path) as file:
            stored = parse_json(file.readline())
        known = stored.pop("vlbias") == kind
    except (ValueError, KeyError, TypeError, AttributeError):
        known = False
    if not known:
        raise ConfigError(f"{path} is not the storage of `vlbias {kind}`. Give another file as `storage`.")
    if (version := stored.pop("format", None)) != FORMAT:
        raise ConfigError(f"{path} has format {version}; this version reads {FORMAT}. Give another file as `storage`.")
    if phrases := differences(stored, job):
        raise ConfigError(
            f"{path} belongs to another job: {', '.join(phrases[:3])}"
            f"{f' (and {len(phrases) - 3} more)' if phrases[3:] else ''}. "
            "Give another folder, another file as `storage`, or the settings it was begun with."
        )
