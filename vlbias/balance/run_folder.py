"""What makes a run resumable: a folder ``OUT/.state`` where each chunk appears whole or not at all.

```
OUT/.state/job.json        what this run is; another job is refused
OUT/.state/scorers.json     calibrated scorers, the same for every shard
OUT/.state/chunks/0003/    result.json and pictures of a finished chunk, with their digests
OUT/.state/chunks/0003-4f.../  what takes the place of an edit of that chunk that people refused
OUT/.state/review.json     which edits those are
OUT/.state/tmp/            work in progress; may be lost at any moment
OUT/.state/done.json       all files are in place; their digests
OUT/.state/before.json     the same, of before a review that is being carried out
```
A folder is filled under ``tmp`` and renamed into place, which a file system does in one step. What is taken up again is
compared with its digest: a chunk with a damaged picture counts as not done, and a finished run says which file is not
what it wrote.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

from vlbias.arguments import checked_call
from vlbias.balance.attempt import ChunkResult
from vlbias.balance.review import REVIEW_FILE
from vlbias.balance.verification import SCORES
from vlbias.data.files import inside_root, linked
from vlbias.errors import CheckpointError, OutputError
from vlbias.files import MAX_JSON_BYTES, read_object, refuse_links, sha256_file, write_json, writing
from vlbias.runstore import differences

__all__ = ["ChunkKey", "LostPictureError", "RunFolder", "donors_of", "verify_run"]

STATE = ".state"
#: Files of the state that have a line for each file of the output, and how many bytes of them are read: a million loose
#: pictures take 120 MB.
_DIGESTS, MAX_DIGESTS = frozenset({"done.json", "before.json"}), 2**29
#: How names of drafts begin.
_DRAFT = "draft-"
#: Files of a finished run that are written again when somebody measures, reports or reviews anew.
REWRITTEN = frozenset({"report.json", "report.html", "README.md", REVIEW_FILE})
#: Pictures that a run makes: edits and copies.
_MADE = re.compile(r"edit-\d{6,}\.\w+|.+\+copy\d+\.\w+")
#: A chunk of the plan by its number, or a piece that a review added by its name.
ChunkKey: TypeAlias = int | str


class LostPictureError(OutputError):
    """A chunk's picture is neither where it was made nor where it belongs; the chunk must be made again.

    Attributes:
        chunk: its number, or the name of a piece that a review added.
    """

    def __init__(self, chunk: ChunkKey, path: Path):
        super().__init__(f"{path} is missing or damaged. Run the same command again; its chunk is then made again.")
        self.chunk = chunk


class RunFolder:
    """One output folder and its state.

    Args:
        out_dir: the output folder; made if it is not there.
        job: what the run is, as plain values; a folder begun with another job is refused.
        links: whether originals are links, ``OUT/train/NAME``; other links are refused.

    Raises:
        OutputError: the folder holds something else, or another job, or links, or cannot be written; or its state is
            damaged.
    """

    def __init__(self, out_dir: str | os.PathLike[str], job: Mapping[str, object], *, links: bool = False):
        self.out, self.links = Path(out_dir), links
        self.state = self.out / STATE
        _refuse_others(self.out)
        refuse_links(self.out, allowed=lambda path: links and path.parent.parent == self.out != path.parent)
        with writing(self.out):
            for folder in (self.state / "chunks", self.state / "tmp"):
                folder.mkdir(parents=True, exist_ok=True)
        # through JSON, so that tuples and lists compare equal
        self.job = json.loads(json.dumps(job, sort_keys=True))
        found = self.first_wins("job.json", self.job)
        if found != self.job:
            raise OutputError(f"{self.out} belongs to another job: {_difference(found, self.job)}. Give a new folder.")
        self._sound: set[ChunkKey] = set()
        #: What this process wrote since a review began; of a run without one nobody asks.
        self._written: set[str] | None = set() if self.has("before.json") else None

    # -- small files --------------------------------------------------------------------------------------------------

    def temporary(self, name: str) -> Path:
        """A path under ``tmp`` that nobody else uses, or knows before it is there."""
        return self.state / "tmp" / f"{_DRAFT}{secrets.token_hex(8)}-{name}"

    def has(self, name: str) -> bool:
        """Whether a file of the state is there."""
        return (self.state / name).is_file()

    def read(self, name: str) -> dict[str, Any]:
        """A JSON file of the state.

        Raises:
            OutputError: it is damaged; says what to remove.
        """
        remedy = {
            "job.json": f"Remove {self.state} to begin the run anew",
            "scorers.json": f"Remove {self.state} to begin the run anew",
        }
        try:
            return read_object(self.state / name, max_bytes=MAX_DIGESTS if name in _DIGESTS else MAX_JSON_BYTES)
        except CheckpointError as error:
            what = remedy.get(name, f"Remove {self.state / name}")
            raise OutputError(f"{str(error).rstrip('.')}. {what}, and run the same command again.") from error

    def first_wins(self, name: str, value: Mapping[str, object]) -> dict[str, Any]:
        """Write a JSON file if it is not there, and read what is there: shards that start together agree on it."""
        if not self.has(name):
            path = self.state / name
            with writing(path):
                draft = self.temporary(name)
                _write_new(draft, json.dumps(value, indent=1, sort_keys=True).encode())
                try:
                    os.link(draft, path)
                except FileExistsError:
                    pass
                except OSError:
                    # a file system without hard links; the writers would write the same
                    os.replace(draft, path)
                draft.unlink(missing_ok=True)
        return self.read(name)

    def put(self, data: bytes | Iterable[bytes], path: Path) -> None:
        """Write a file of the output so that it appears whole; its bytes may come in pieces."""
        with self.draft(path) as file:
            file.writelines([data] if isinstance(data, bytes) else data)

    @contextlib.contextmanager
    def draft(self, path: Path) -> Iterator[BinaryIO]:
        """A file of the output that is written piece by piece, and appears whole or not at all."""
        draft = self._make_parent(path)
        with writing(path):
            with draft.open("xb") as file:
                yield file
            os.replace(draft, path)

    def link(self, source: Path, path: Path) -> None:
        """Make a symbolic link of the output, in one step; it says the way from there, not the place on the disk."""
        draft = self._make_parent(path)
        with writing(path):
            os.symlink(os.path.relpath(source.resolve(), path.parent.resolve()), draft)
            os.replace(draft, path)

    def _make_parent(self, path: Path) -> Path:
        """Make the folder of a file of the output; where its draft may be written."""
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        if self._written is not None:
            self._written.add(path.relative_to(self.out).as_posix())
        return self.temporary(path.name)

    # -- chunks -------------------------------------------------------------------------------------------------------

    def chunk_dir(self, chunk: ChunkKey) -> Path:
        """Where a finished chunk lies."""
        return self.state / "chunks" / _chunk_name(chunk)

    def has_chunk(self, chunk: ChunkKey, rows: Iterable[Mapping[str, Any]]) -> bool:
        """Whether a chunk is finished and sound; a damaged one is removed, to be made again.

        Args:
            chunk: its number.
            rows: the edits that the plan gives it.
        """
        folder = self.chunk_dir(chunk)
        if chunk in self._sound:
            return True
        if not folder.is_dir():
            return False
        if _is_sound(folder, {row["slot"]: row for row in rows}):
            self._sound.add(chunk)
            return True
        self.drop_chunk(chunk)
        return False

    def commit_chunk(self, chunk: ChunkKey, result: ChunkResult) -> None:
        """Store a finished chunk in one step.

        Args:
            chunk: its number.
            result: what it came to.
        """
        draft = self.temporary(f"chunk-{_chunk_name(chunk)}")
        try:
            with writing(self.chunk_dir(chunk)):
                _fill(draft, result)
                _rename_once(draft, self.chunk_dir(chunk))
        except OutputError as error:  # the others are counted for the message alone: there may be very many
            raise OutputError(f"{error} {len(os.listdir(self.state / 'chunks'))} finished chunks are kept.") from error

    def read_chunk(self, chunk: ChunkKey) -> dict[str, Any]:
        """What a finished chunk came to.

        Raises:
            OutputError: it cannot be read; says what to remove.
        """
        return self.read(f"chunks/{_chunk_name(chunk)}/result.json")

    def read_chunks(self, chunks: Sequence[int]) -> Mapping[int, Mapping[str, Any]]:
        """Several finished chunks by their numbers; each is read whenever it is asked for."""
        return _Chunks(self, chunks)

    def drop_chunk(self, chunk: ChunkKey) -> None:
        """Remove a chunk, to make it again."""
        with writing(self.chunk_dir(chunk)):
            shutil.rmtree(self.chunk_dir(chunk), ignore_errors=True)
        self._sound.discard(chunk)

    def place(self, name: str, path: Path, chunk: ChunkKey, digest: str) -> None:
        """Move a chunk's picture to its place in the dataset; done already counts as done.

        Args:
            name: of the picture in its chunk.
            path: where it belongs.
            chunk: where it lies.
            digest: what it must be.

        Raises:
            LostPictureError: it is in neither place, or not what was made.
        """
        source = self.chunk_dir(chunk) / name
        self._make_parent(path)
        with writing(path), contextlib.suppress(FileNotFoundError):
            os.replace(source, path)
        if not _has_digest(path, digest):
            raise LostPictureError(chunk, path)

    # -- reviews ------------------------------------------------------------------------------------------------------

    def open_again(self, review: Mapping[str, object]) -> None:
        """Take up a review: a finished run is unfinished until its edits are replaced.

        Args:
            review: what is refused, as plain values; read again by the name ``review.json``.
        """
        before, path = self.state / "before.json", self.state / "review.json"
        self._written = self._written or set()
        with writing(path):
            try:
                os.replace(self.state / "done.json", before)
            except FileNotFoundError:
                self._note_made(before)
            write_json(path, review)

    def _note_made(self, before: Path) -> None:
        """Where an earlier review was left half carried out, what it has put in place may have to go as well."""
        if before.is_file():
            known = self.read(before.name)
            files = (path.relative_to(self.out) for path in self.out.rglob("*"))
            made = {path.as_posix(): "" for path in files if path.parts[0] != STATE and _MADE.fullmatch(path.name)}
            write_json(before, known | {"files": made | known.get("files", {})})

    def clear_after_review(self, names: Iterable[str]) -> None:
        """Remove what the run had written before its review and did not write now: refused edits and their donors.

        Args:
            names: pictures of the dataset; they stay, and so does what this process wrote.
        """
        before = self.read("before.json").get("files", {}) if self.has("before.json") else {}
        strange = linked(self.out, {name.rpartition("/")[0] for name in before})
        for name in sorted(set(before) - set(names) - (self._written or set())):
            if inside_root(name) == name and name.rpartition("/")[0] not in strange:
                (self.out / name).unlink(missing_ok=True)
        for path in self.state.glob("chunks/*/*-*.*"):  # what was refused before it was ever put in place
            path.unlink(missing_ok=True)

    # -- the end ------------------------------------------------------------------------------------------------------

    def finish(self) -> None:
        """Note that all files are in place, with their digests."""
        self.first_wins("done.json", {"complete": True, "files": _digests(self.out)})
        (self.state / "before.json").unlink(missing_ok=True)

    def check_finished(self) -> None:
        """Compare a finished run with what it wrote.

        Raises:
            OutputError: names a file that is missing or changed.
        """
        problems = _changed(self.out, self.read("done.json"))
        if problems:
            more = f" and {len(problems) - 1} more" if len(problems) > 1 else ""
            raise OutputError(
                f"{self.out} is not what was written: {problems[0]}{more}. Restore the files, or remove "
                f"{self.state / 'done.json'} and the changed files to have them made again."
            )

    def read_report(self) -> dict[str, Any]:
        """What a finished run says of itself.

        Raises:
            OutputError: its ``report.json`` is missing or damaged; says what to remove.
        """
        try:
            return read_object(self.out / "report.json")
        except CheckpointError as error:
            what = f"Remove it and {self.state / 'done.json'}, and run the same command again to have it made again"
            raise OutputError(f"{str(error).rstrip('.')}. {what}.") from error

    def clean(self) -> None:
        """Remove what killed runs left half done, and nothing else."""
        for entry in (self.state / "tmp").glob(f"{_DRAFT}*"):
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                entry.unlink(missing_ok=True)


class _Chunks(Mapping[int, Mapping[str, Any]]):
    def __init__(self, run: RunFolder, numbers: Sequence[int]):
        self._run, self._numbers = run, numbers

    def __getitem__(self, number: int) -> Mapping[str, Any]:
        return self._run.read_chunk(number)

    def __iter__(self) -> Iterator[int]:
        return iter(self._numbers)

    def __len__(self) -> int:
        return len(self._numbers)


@checked_call
def verify_run(out_dir: str | os.PathLike[str]) -> list[str]:
    """Compare the files of a finished run with the digests that it wrote down.

    Args:
        out_dir: the output folder.

    Returns:
        One sentence for each file that is missing or changed, in the order of their names; none where all is well.
        Reports are not compared: they may be written anew.

    Raises:
        OutputError: no finished run is there, or its state is damaged.
    """
    out = Path(out_dir)
    path = out / STATE / "done.json"
    refuse_links(out, allowed=lambda place: out / STATE not in (place, *place.parents))
    if not path.is_file():
        raise OutputError(f"{out} is not a finished run of balance ({path} is missing). Run the same command again.")
    try:
        return _changed(out, read_object(path, max_bytes=MAX_DIGESTS))
    except CheckpointError as error:
        raise OutputError(f"{str(error).rstrip('.')}. Remove it, and run the same command again.") from error


def _digests(out: Path) -> dict[str, str]:
    """Relative path -> digest of every file of a dataset; of a link, where it points to."""
    found = {}
    for folder, folders, names in os.walk(out):
        folders[:] = sorted(name for name in folders if name != STATE)
        for name in sorted(names):
            path = Path(folder) / name
            relative = path.relative_to(out).as_posix()
            if relative not in REWRITTEN and not name.startswith("."):
                found[relative] = f"link:{os.readlink(path)}" if path.is_symlink() else sha256_file(path)
    return found


def _changed(out: Path, done: Mapping[str, object]) -> list[str]:
    files = done.get("files")
    if not isinstance(files, dict):
        path = out / STATE / "done.json"
        raise OutputError(f"{path} has no list of files. Remove it, and run the same command again.")
    problems = []
    strange = linked(out, {name.rpartition("/")[0] for name in files})
    for name, digest in sorted(files.items()):
        path = out / name
        if inside_root(name) != name or name.rpartition("/")[0] in strange:
            # what stands elsewhere is not looked at, whatever its digest
            problems.append(f"{name} leads out of the folder")
            continue
        if str(digest).startswith("link:"):
            same = path.is_symlink() and f"link:{os.readlink(path)}" == digest
        else:
            same = _has_digest(path, digest)
        if not same:
            there = os.path.lexists(path)  # no where the name is longer than any
            problems.append(f"{name} {'has changed' if there else 'is missing'}")
    return problems


def _is_sound(folder: Path, rows: Mapping[int, Mapping[str, object]]) -> bool:
    """Whether a chunk's result can have come of the plan's rows, by slot, and its pictures are those that were made."""
    try:
        values = read_object(folder / "result.json")
        files, donors = values["files"], donors_of(rows.values())
        return (
            values["unet_evaluations"] >= 0
            and all(_fits(record, rows[record["slot"]]) for record in values["kept"] + values["rejected"])
            and all(_is_kept(record, rows[record["slot"]], donors, files) for record in values["kept"])
            and all(re.fullmatch(r"(edit|face|trip)-\d{6,}\.[a-z]+", name) for name in files)
            # a picture that is gone was put in its place, where `place` looks at it
            and all(not (folder / name).exists() or _has_digest(folder / name, files[name]) for name in files)
        )
    except (CheckpointError, KeyError, TypeError, ValueError, AttributeError):
        return False


def _fill(draft: Path, result: ChunkResult) -> None:
    """Make a chunk's folder: its pictures, and what it came to with their digests."""
    draft.mkdir()
    digests = {}
    for stem, file in result.files.items():
        name = f"{stem}{file.suffix}"
        _write_new(draft / name, file.data)
        digests[name] = hashlib.sha256(file.data).hexdigest()
    values = {
        "kept": result.kept,
        "rejected": result.rejected,
        "unet_evaluations": result.unet_evaluations,
        "files": digests,
    }
    _write_new(draft / "result.json", json.dumps(values, indent=1, sort_keys=True).encode())


def _rename_once(draft: Path, folder: Path) -> None:
    """Put a chunk in its place; where another process was first, with the same bytes, its chunk stays."""
    try:
        os.rename(draft, folder)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        shutil.rmtree(draft)


def _chunk_name(chunk: ChunkKey) -> str:
    return f"{chunk:04d}" if isinstance(chunk, int) else chunk


def donors_of(rows: Iterable[Mapping[str, Any]]) -> set[tuple[str, str]]:
    """Donors that a chunk may have, with their groups."""
    pairs = [(row["donor"], row["from"]) for row in rows]
    pairs += [pair for row in rows for pair in json.loads(row.get("reserves", "[]"))]
    return {(str(donor), str(group)) for donor, group in pairs}


def _fits(record: Mapping[str, object], row: Mapping[str, object]) -> bool:
    """Whether what a chunk says of a try can have come of a row of the plan."""
    same = all(record[name] == str(row[name]) for name in ("split", "target", "to"))
    texts = all(isinstance(record[name], str) for name in ("donor", "from", "path", "strength"))
    return same and texts and type(record["seed"]) is int


def _is_kept(
    record: Mapping[str, Any], row: Mapping[str, Any], donors: set[tuple[str, str]], files: Mapping[str, Any]
) -> bool:
    """Whether what a chunk says of a finished edit can be true; of a drawn donor, its seed is its name."""
    donor = (record["donor"], record["from"])
    drawn = (f"sample-{record['seed']}", str(row["from"])) if row["donor"] == "" else None
    picture = f"-{record['slot']:06d}{record['suffix']}"
    return (
        (donor in donors or donor == drawn)
        and re.fullmatch(r"(-?\d+\.\d+(;(?!$)|$))*", record["strength"]) is not None
        and isinstance(record["note"], str)
        and all(isinstance(record.get(name), int | float | None) for name in SCORES)
        and any(f"{stem}{picture}" in files for stem in ("edit", "trip"))
        and (not row.get("keep_donor") or f"face-{record['slot']:06d}.png" in files)
    )


def _has_digest(path: Path, digest: object) -> bool:
    try:
        return stat.S_ISREG(path.lstat().st_mode) and sha256_file(path) == digest
    except OSError:
        return False


def _write_new(path: Path, data: bytes) -> None:
    """Write a file that nobody else has laid there: neither a link nor another name of a file is written through."""
    with path.open("xb") as file:
        file.write(data)


def _refuse_others(out: Path) -> None:
    if out.is_file():
        raise OutputError(f"{out} is a file. Give a folder for the balanced dataset.")
    if out.is_dir() and not (out / STATE / "job.json").is_file():
        others = sorted(entry.name for entry in out.iterdir() if entry.name != STATE)
        if others:
            more = f" and {len(others) - 3} more" if len(others) > 3 else ""
            names = ", ".join(others[:3]) + more
            raise OutputError(f"{out} has other files in it ({names}). Give a new or empty folder.")


def _difference(found: Mapping[str, object], wanted: Mapping[str, object]) -> str:
    """The first setting in which two jobs differ; a digest says nothing to people."""
    phrases = [text for text in differences(found, wanted) if "digest" not in text.split("`")[1]]
    return phrases[0] if phrases else "its plan differs (other labels in the dataset)"
