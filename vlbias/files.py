"""Files and folders that appear whole or not at all, JSON, and hashes; every failure is a sentence.

A result is written to a draft and renamed into place, which a file system does in one step. A draft has a fixed name
and is locked while it is being written, so what a killed run left is taken over by the next one that writes the same.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias

from vlbias.errors import CheckpointError, CheckpointNotFoundError, OutputError, VlbiasError

if TYPE_CHECKING:
    import pandas as pd

try:
    import fcntl
except ImportError:  # Windows: drafts are not locked there
    fcntl = None  # type: ignore[assignment]

__all__ = [
    "AnyPath",
    "draft_folder",
    "is_text",
    "json_records",
    "json_value",
    "links_below",
    "make_folder",
    "new_file",
    "open_plain",
    "parse_json",
    "read_json",
    "read_object",
    "refuse_links",
    "sha256_file",
    "sha256_json",
    "write_file",
    "write_json",
    "writing",
]

#: A path as people give it.
AnyPath: TypeAlias = str | os.PathLike[str]

#: A larger JSON file is refused before it is read; in memory it could take twenty times as much.
MAX_JSON_BYTES = 64 * 2**20
#: Lists and objects inside each other, and digits of a whole number; no file of ours comes near.
MAX_JSON_DEPTH, MAX_JSON_DIGITS = 64, 100

#: The first part of a path that somebody meant for a URL; a drive has one letter.
_URL_PART = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")

_REMEDIES = {
    errno.ENOSPC: "The disk is full: free some space",
    errno.EDQUOT: "The disk quota is used up: free some space",
    errno.EROFS: "The disk is read-only: choose a folder on another one",
    errno.EACCES: "No permission to write there: change it or choose another folder",
    errno.EPERM: "No permission to write there: change it or choose another folder",
    errno.ENOENT: "A folder on the way is missing: make it or choose another one",
    errno.ENOTDIR: "A part of the path is a file: choose another folder",
    errno.EISDIR: "A folder is in its place: choose another name",
}


# -- writing ----------------------------------------------------------------------------------------------------------


@contextmanager
def writing(place: AnyPath) -> Iterator[None]:
    """Turn a failed write of ``place`` into an :class:`OutputError` that names it and the remedy."""
    try:
        yield
    except VlbiasError:
        raise
    except OSError as error:
        remedy = _REMEDIES.get(error.errno or 0, "Make it writable")
        text = f"{place} cannot be written ({error.strerror or error}). {remedy} and run the same command again."
        raise OutputError(text) from error


def make_folder(folder: AnyPath) -> Path:
    """Make a folder and its parents if they are not there, for files to be written into.

    Raises:
        OutputError: a file is in its place, the folder cannot be made or written, or it is a URL or begins with ``~``,
            which only a shell reads as somebody's home.
    """
    folder = Path(folder)
    if folder.parts[:1] and not folder.is_dir():
        if folder.parts[0].startswith("~"):
            raise OutputError(f"{folder} would be a folder named '{folder.parts[0]}' here. Write out the home folder.")
        if _URL_PART.fullmatch(folder.parts[0]):
            raise OutputError(f"{folder} is a URL, not a folder of this disk. Give a folder for the results.")
    if folder.is_file():
        raise OutputError(f"{folder} is a file. Give a folder for the results.")
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):  # known before the work that fills it, not after
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    return folder


def links_below(folder: AnyPath) -> Iterator[Path]:
    """Entries below a folder that are links, or neither files nor folders; none of them is gone along.

    What is read or written there is somewhere else. The folder itself may be a link: its user named it.
    """
    waiting = [os.fspath(folder)]
    while waiting:
        with suppress(FileNotFoundError, NotADirectoryError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                elif not entry.is_file(follow_symlinks=False):
                    yield Path(entry.path)


def refuse_links(*places: AnyPath, allowed: Callable[[Path], bool] = lambda path: False) -> None:
    """Refuse results that would be read or written somewhere else, through links that somebody laid in their way.

    Args:
        places: a folder with all that is below it, or a file, that is written to; it need not be there yet.
        allowed: whether a link below may stay.

    Raises:
        OutputError: names the link (or pipe, or device).
    """
    for place in map(Path, places):
        found = links_below(place) if place.is_dir() else filter(_is_elsewhere, [place])
        with writing(place):
            for path in found:
                if not allowed(path):
                    what = f"a link to {os.readlink(path)}" if path.is_symlink() else "neither a file nor a folder"
                    raise OutputError(f"{path} is {what}. Remove it, or give a new folder.")


def _is_elsewhere(path: Path) -> bool:
    return path.is_symlink() or (path.exists() and not path.is_file())


@contextmanager
def new_file(path: AnyPath) -> Iterator[BinaryIO]:
    """A file to write to; it takes its place when the block ends well, and leaves nothing when it does not.

    Raises:
        OutputError: the folder is missing, read-only or full.
    """
    path = Path(path)
    if not path.name:
        raise OutputError(f"'{path}' is a folder. Give the name of a file.")
    with writing(path):
        draft = path.with_name(f".{path.name}.draft")
        with os.fdopen(_open_locked(draft), "wb") as handle:
            try:
                yield handle
                handle.flush()
                os.fsync(handle.fileno())
                if fcntl is None:
                    handle.close()  # an open file cannot be renamed there
                os.replace(draft, path)
            except BaseException:
                draft.unlink(missing_ok=True)
                raise


def _open_locked(draft: Path) -> int:
    """Descriptor of an empty draft that nobody else writes; whoever holds it is waited for."""
    while True:
        descriptor = os.open(draft, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
        _lock(descriptor, wait=True)
        if os.fstat(descriptor).st_nlink > 1:
            draft.unlink()  # another name of somebody's file, which must not be emptied
        elif fcntl is None or _is_at(descriptor, draft):
            os.ftruncate(descriptor, 0)
            return descriptor
        os.close(descriptor)  # the one before us has moved this file into its place


def _lock(descriptor: int, *, wait: bool) -> bool:
    """Take the lock that dies with its holder; True also where the file system has no such locks."""
    if fcntl is not None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            pass
    return True


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.lstat())
    except FileNotFoundError:
        return False


def write_file(path: AnyPath, data: bytes | str) -> None:
    """Write a file (text as UTF-8) so that it appears whole or not at all, also when the process is killed.

    Raises:
        OutputError: the folder is missing, read-only or full, or the text holds half a character.
    """
    try:
        content = data.encode() if isinstance(data, str) else data
    except UnicodeEncodeError as error:
        near = ascii(error.object[max(error.start - 20, 0) : error.start + 20])
        text = f"{path} cannot be written: half a character stands in {near}. Names must be UTF-8."
        raise OutputError(text) from error
    with new_file(path) as handle:
        handle.write(content)


def write_json(path: AnyPath, value: object) -> None:
    """Write JSON, indented and with a final newline; keys keep their order.

    Raises:
        OutputError: the place cannot be written.
    """
    write_file(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def json_value(value: Any, digits: int | None = None) -> Any:
    """A cell of a table as JSON has it: a number of Python's own, ``None`` where it is not finite.

    Args:
        value: a number of Python or NumPy; all else comes back as it is.
        digits: that are kept behind the point; ``None`` for all. Six are far below sampling noise, and keep files the
            same across libraries.
    """
    value = value.item() if getattr(value, "shape", None) == () else value
    if not isinstance(value, float):
        return value
    return None if not math.isfinite(value) else value if digits is None else round(value, digits)


def json_records(table: pd.DataFrame, digits: int | None = None) -> list[dict[str, Any]]:
    """The rows of a table as JSON has them, column => value; see :func:`json_value`."""
    return [{str(key): json_value(value, digits) for key, value in row.items()} for row in table.to_dict("records")]


@contextmanager
def draft_folder(folder: AnyPath, last: str = "config.json") -> Iterator[Path]:
    """A folder to fill; what it holds takes its place in ``folder`` when the block ends well.

    A new folder appears whole or not at all. In a folder that is there already, entries of the same name are replaced
    one by one and others stay; ``last`` comes last, so that a run that is killed meanwhile can be made again.

    Args:
        folder: where the result shall be; its parents are made.
        last: the file that says what the folder is.

    Raises:
        OutputError: the folder cannot be written, or another process is writing it.
    """
    folder = Path(folder)
    make_folder(folder if folder.is_dir() else folder.parent)
    beside, inside = folder.with_name(f".{folder.name}.draft") if folder.name else None, folder / ".draft"
    draft = inside if folder.is_dir() or beside is None else beside
    with writing(folder):
        for leftover in filter(None, (beside, inside)):
            _clear(leftover, folder)
        draft.mkdir()
        descriptor = os.open(draft, os.O_RDONLY)
        try:
            _lock(descriptor, wait=False)
            yield draft
            if draft is beside:
                os.rename(draft, folder)
            else:
                _move_entries(draft, folder, last)
        finally:
            os.close(descriptor)
            shutil.rmtree(draft, ignore_errors=True)


def _clear(leftover: Path, folder: Path) -> None:
    """Remove the draft of a run that is dead."""
    if leftover.is_symlink() or not leftover.is_dir():
        return
    descriptor = os.open(leftover, os.O_RDONLY)
    try:
        if not _lock(descriptor, wait=False):
            raise OutputError(f"{folder} is being written by another process. Wait for it, or choose another folder.")
        shutil.rmtree(leftover)
    finally:
        os.close(descriptor)


def _move_entries(draft: Path, folder: Path, last: str) -> None:
    old = draft / ".old"
    old.mkdir()
    for entry in sorted(draft.iterdir(), key=lambda entry: (entry.name == last, entry.name)):
        target = folder / entry.name
        if entry == old:
            continue
        if entry.is_dir() and (target.is_symlink() or target.exists()):
            os.rename(target, old / entry.name)
        os.replace(entry, target)


# -- reading ----------------------------------------------------------------------------------------------------------


def open_plain(path: AnyPath) -> BufferedReader:
    """Open a file to read from, if it is one: a pipe would wait for ever, and some devices never end.

    Raises:
        OSError: there is no such file, it cannot be read, or it is a folder, a pipe or a device.
    """
    _check_plain(os.stat(path), path)
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        _check_plain(os.fstat(descriptor), path)  # it may have been replaced meanwhile
    except OSError:
        os.close(descriptor)
        raise
    return open(path, "rb", opener=lambda *_: descriptor)


def _check_plain(status: os.stat_result, path: AnyPath) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, "it is a folder", os.fspath(path))
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "it is a pipe or a device, no plain file", os.fspath(path))


#: About a file that somebody or a full disk changed; one that a command makes is made again.
_REMEDY = "Put it back as it was written, or remove it."


def read_json(path: AnyPath, *, max_bytes: int = MAX_JSON_BYTES) -> Any:
    """Read a JSON file; see :func:`parse_json` for what is refused.

    Raises:
        CheckpointNotFoundError: no such file.
        CheckpointError: it is not a plain file, larger than ``max_bytes``, or not JSON; the message names the file.
    """
    try:
        with open_plain(path) as file:
            content = file.read(max_bytes + 1)
    except FileNotFoundError as error:
        raise CheckpointNotFoundError(f"{path} does not exist.") from error
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror or error}).") from error
    if len(content) > max_bytes:
        raise CheckpointError(f"{path} has more than {max_bytes:,} bytes; it is not read.")
    try:
        return parse_json(content)
    except ValueError as error:
        raise CheckpointError(f"{path} is not valid JSON ({error}). {_REMEDY}") from error


def parse_json(text: str | bytes) -> Any:
    """A value from JSON in UTF-8.

    Raises:
        ValueError: it is not JSON; a key stands twice in one object; a number is none or not finite, or has more than
            100 digits; lists and objects are more than 64 deep; or a text has half a character.
    """
    text = text.decode() if isinstance(text, bytes) else text
    try:
        value = json.loads(
            text,
            object_pairs_hook=_once,
            parse_constant=_no_constant,
            parse_int=_whole,
            parse_float=_finite,
        )
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    _check_depth(value)
    if _HALF.search(text) and not is_text(json.dumps(value, ensure_ascii=False)):
        raise ValueError("half a character stands in a text")
    return value


def _check_depth(value: Any) -> None:
    level, depth = [value], 0
    while level:
        inner = [part for part in level if isinstance(part, list | dict)]
        level = [entry for part in inner for entry in (part.values() if isinstance(part, dict) else part)]
        depth += 1
        if depth > MAX_JSON_DEPTH:
            raise ValueError("it is nested too deeply")


def _whole(text: str) -> int:
    if len(text) > MAX_JSON_DIGITS:
        raise ValueError(f"it contains a number of {len(text)} digits")
    return int(text)


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"it contains {text:.40}, which is too large for a number")
    return value


def read_object(path: AnyPath, *, max_bytes: int = MAX_JSON_BYTES) -> dict[str, Any]:
    """Read a JSON file that holds one object ``{...}``.

    Raises:
        CheckpointError: as :func:`read_json`, or the file holds something else.
    """
    value = read_json(path, max_bytes=max_bytes)
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} must hold one JSON object {{...}}; it contains {_kind(value)}. {_REMEDY}")
    return value


#: How JSON can spell half of a pair of UTF-16.
_HALF = re.compile(r"\\u[dD][89a-fA-F]")


def is_text(text: str) -> bool:
    """Whether a text can be written: none of it is half a character, as in names that are not UTF-8."""
    try:
        return text.isascii() or bool(text.encode())
    except UnicodeEncodeError:
        return False


def _kind(value: object) -> str:
    if value is None:
        return "null"
    return {list: "a list", str: "a text", bool: "true or false"}.get(type(value), "a number")


def _once(pairs: list[tuple[str, object]]) -> dict[str, Any]:
    """An object of JSON (``object_pairs_hook``) whose keys differ.

    Raises:
        ValueError: a key stands twice.
    """
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {twice!r:.80} stands twice")
    return found


def _no_constant(name: str) -> float:
    raise ValueError(f"it contains {name}, which is not a number in JSON")


def sha256_file(path: AnyPath) -> str:
    """SHA-256 of a file, as hexadecimal text.

    Raises:
        OSError: see :func:`open_plain`.
    """
    with open_plain(path) as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def sha256_json(value: object) -> str:
    """SHA-256 of a value as JSON, as hexadecimal digits: equal values have one, whatever the order of their keys.

    What JSON has no form for counts by its text.

    Example:
        >>> sha256_json({"a": 1, "b": (2,)}) == sha256_json({"b": [2], "a": 1})
        True
    """
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()
