"""Results of runs, one JSON line each: append-only, so a run that is finished stays finished.

Workers share the file. Who works on a run holds its file lock; a killed worker frees it at once and somebody else
takes the run up. A line that was cut off while being written counts as not written.
"""

from __future__ import annotations

import base64
import json
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vlbias.errors import ConfigError
from vlbias.files import make_folder
from vlbias.locks import FileLock

__all__ = ["ResultStore"]

_FORMAT = 1


class ResultStore:
    """Predictions by run key.

    Args:
        path: the file, made if absent; None keeps results in memory.
        header: what workers must agree on; compared with the file's first line.

    Raises:
        ConfigError: the file is something else, or of another plan; what differs is named.
    """

    def __init__(self, path: str | os.PathLike[str] | None, header: Mapping[str, Any]):
        self.path = Path(path) if path is not None else None
        self._memory: dict[str, dict[str, Any]] = {}
        self.header = {"vlbias": "simulate", "format": _FORMAT, **header}
        if self.path is not None:
            make_folder(self.path.parent)
            with FileLock(self._lock("file")):
                self._check_header()

    @property
    def folder(self) -> Path | None:
        """Beside the file, for locks and edited images."""
        return None if self.path is None else self.path.with_name(self.path.name + ".files")

    def claim(self, key: str) -> FileLock | None:
        """The lock of a run if it is free and the run not done; None otherwise. In memory every claim is granted."""
        if self.path is None:
            return None if key in self._memory else FileLock(os.devnull)
        lock = FileLock(self._lock(f"run-{zlib.crc32(key.encode()):08x}"))
        if not lock.acquire(wait=False):
            return None
        if key in self.read():
            lock.release()
            return None
        return lock

    def add(self, key: str, predicted: np.ndarray, **fields: Any) -> None:
        """Store the predictions (class codes) of a run."""
        record = {"run": key, "predicted": _encode(predicted), **fields}
        if self.path is None:
            self._memory[key] = record
            return
        with FileLock(self._lock("file")), self.path.open("rb+") as file:
            file.seek(0, os.SEEK_END)
            # A line cut off by a crash must not swallow this one.
            if file.tell():
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":
                    file.write(b"\n")
            file.write(json.dumps(record).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def read(self) -> dict[str, dict[str, Any]]:
        """Finished runs by key, predictions decoded."""
        if self.path is None:
            return {key: {**record, "predicted": _decode(record["predicted"])} for key, record in self._memory.items()}
        found: dict[str, dict[str, Any]] = {}
        for line in self.path.read_bytes().split(b"\n")[1:]:
            try:
                record = json.loads(line)
                found[record["run"]] = {**record, "predicted": _decode(record["predicted"])}
            except (ValueError, KeyError, TypeError, zlib.error):
                continue  # cut off while being written
        return found

    def _lock(self, name: str) -> Path:
        assert self.folder is not None
        return self.folder / "locks" / f"{name}.lock"

    def _check_header(self) -> None:
        assert self.path is not None
        if not self.path.exists() or self.path.stat().st_size == 0:
            self.path.write_bytes(json.dumps(self.header).encode() + b"\n")
            return
        try:
            stored = json.loads(self.path.open("rb").readline())
            known = stored.get("vlbias") == "simulate"
        except (ValueError, AttributeError, OSError):
            known = False
        if not known:
            raise ConfigError(f"{self.path} is not the storage of a simulation. Give another file as `storage`.")
        if stored["format"] != _FORMAT:
            raise ConfigError(f"{self.path} has format {stored['format']}; this version reads {_FORMAT}.")
        plain = json.loads(json.dumps(self.header))
        if differing := sorted(key for key in plain if plain[key] != stored.get(key)):
            raise ConfigError(
                f"{self.path} holds another simulation: {', '.join(differing)} "
                f"({differing[0]}: there {stored.get(differing[0])!r}, here {plain[differing[0]]!r}). "
                "Give another file as `storage`, or the plan and settings it was begun with."
            )


def _encode(codes: np.ndarray) -> str:
    return base64.b64encode(zlib.compress(np.asarray(codes).astype("<u2").tobytes())).decode()


def _decode(text: str) -> np.ndarray:
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), dtype="<u2").astype(np.int64)
