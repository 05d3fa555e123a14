"""What makes a run resumable: a folder ``OUT/.state`` where each chunk appears whole or not at all.

```
OUT/.state/job.json        what this run is; another job is refused
OUT/.state/judges.json     calibrated judges, the same for every shard
OUT/.state/chunks/0003/    result.json and pictures of a finished chunk
OUT/.state/tmp/            work in progress; may be lost at any moment
OUT/.state/done.json       all files are in place
```
A folder is filled under ``tmp`` and renamed into place, which a file system does in one step.
"""

from __future__ import annotations

import errno
import itertools
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vlbias.balance.attempt import ChunkResult
from vlbias.errors import OutputError
from vlbias.files import writing

__all__ = ["RunFolder"]

STATE = ".state"

class RunFolder:
    """One output folder and its state.

    Args:
        out_dir: the output folder; made if it is not there.
        job: what the run is, as plain values; a folder begun with another job is refused.

    Raises:
        OutputError: the folder holds something else, or another job, or cannot be written.
    """

    def __init__(self, out_dir: str | os.PathLike[str], job: Mapping[str, Any]):
        self.out = Path(out_dir)
        self.state = self.out / STATE
        if self.out.is_file():
            raise OutputError(f"{self.out} is a file. Give a folder for the balanced dataset.")
        if self.out.is_dir() and not (self.state / "job.json").is_file():
            others = sorted(entry.name for entry in self.out.iterdir() if entry.name != STATE)
            if others:
                more = f" and {len(others) - 3} more" if len(others) > 3 else ""
                raise OutputError(
                    f"{self.out} holds something else ({', '.join(others[:3])}{more}). Give a new or empty folder."
                )
        with writing(self.out):
            for folder in (self.state / "chunks", self.state / "tmp"):
                folder.mkdir(parents=True, exist_ok=True)
        # through JSON, so that tuples and lists compare equal
        self.job = json.loads(json.dumps(job, sort_keys=True))
        found = self.first_wins("job.json", self.job)
        if found != self.job:
            raise OutputError(f"{self.out} holds another job: {_difference(found, self.job)}. Give a new folder.")

    # -- small files --------------------------------------------------------------------------------------------------

    def temporary(self, name: str) -> Path:
        """A path under ``tmp`` that no other process uses."""
        return self.state / "tmp" / f"{os.getpid()}-{next(_COUNTER)}-{name}"

    def first_wins(self, name: str, value: Any) -> Any:
        """Write a JSON file if it is not there, and read what is there: shards that start together agree on it."""
        path = self.state / name
        if not path.is_file():
            with writing(path):
                draft = self.temporary(name)
                draft.write_text(json.dumps(value, indent=1, sort_keys=True))
                try:
                    os.link(draft, path)
                except FileExistsError:
                    pass
                except OSError:
                    # a file system without hard links; the writers would write the same
                    os.replace(draft, path)
                draft.unlink(missing_ok=True)
        return json.loads(path.read_text())

    def put(self, data: bytes, path: Path) -> None:
        """Write a file of the output so that it appears whole."""
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            draft = self.temporary(path.name)
            draft.write_bytes(data)
            os.replace(draft, path)

    def link(self, source: Path, path: Path) -> None:
        """Make a symbolic link of the output, in one step."""
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            draft = self.temporary(path.name)
            os.symlink(source.resolve(), draft)
            os.replace(draft, path)

    # -- chunks -------------------------------------------------------------------------------------------------------

    def chunk_dir(self, chunk: int) -> Path:
        return self.state / "chunks" / f"{chunk:04d}"

    def has_chunk(self, chunk: int) -> bool:
        return (self.chunk_dir(chunk) / "result.json").is_file()

    def commit_chunk(self, chunk: int, result: ChunkResult) -> None:
        """Store a finished chunk in one step.

        Args:
            chunk: its number.
            result: what it came to.
        """
        done = sum(1 for entry in (self.state / "chunks").iterdir())
        draft = self.temporary(f"chunk-{chunk:04d}")
        with writing(self.chunk_dir(chunk), saved=f"{done} finished chunks are kept."):
            draft.mkdir()
            for stem, file in result.files.items():
                (draft / f"{stem}{file.suffix}").write_bytes(file.data)
            values = {"kept": result.kept, "rejected": result.rejected, "unet_evaluations": result.unet_evaluations}
            (draft / "result.json").write_text(json.dumps(values, indent=1, sort_keys=True))
            try:
                os.rename(draft, self.chunk_dir(chunk))
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
                # another process committed the same chunk, with the same bytes
                shutil.rmtree(draft)

    def read_chunk(self, chunk: int) -> dict[str, Any]:
        path = self.chunk_dir(chunk) / "result.json"
        try:
            return json.loads(path.read_text())
        except (OSError, ValueError) as error:
            raise OutputError(
                f"{path} cannot be read ({error}). Remove {path.parent}; the chunk is then computed again."
            ) from error

    def place(self, chunk: int, name: str, path: Path) -> None:
        """Move a chunk's picture to its place in the dataset; done already counts as done."""
        source = self.chunk_dir(chunk) / name
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.replace(source, path)
            except FileNotFoundError:
                if not path.is_file():
                    raise OutputError(
                        f"{path} is missing, and so is {source}. Remove {source.parent} to compute the chunk again."
                    ) from None

    def clean(self) -> None:
        """Remove what killed runs left half done."""
        for entry in (self.state / "tmp").iterdir():
            if entry.is_dir():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                entry.unlink(missing_ok=True)


_COUNTER = itertools.count()


def _difference(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """The first setting in which two jobs differ."""
    for key in sorted(set(found) | set(wanted)):
        if found.get(key) != wanted.get(key):
            if isinstance(found.get(key), dict) and isinstance(wanted.get(key), dict):
                return _difference(found[key], wanted[key])
            if key == "plan_digest":
                continue
            return f"its `{key}` is {found.get(key)!r}, this run's is {wanted.get(key)!r}"
    return "its plan differs (other labels in the dataset)"
