"""The one door to object stores: datasets fetched from an fsspec URL, finished folders sent to one.

The library works on folders of this disk. What a URL names is fetched into the user's cache before it is read, and what
is made for a URL is made in a folder of the cache and sent from there. Nothing reaches a network unless somebody typed
a URL.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from vlbias.checkpoints import cache_folder
from vlbias.errors import CheckpointError, ConfigError, DatasetError, MissingDependencyError, OutputError
from vlbias.files import is_text, read_object, sha256_file, write_json

__all__ = ["fetch", "is_url", "send", "send_folder", "work_folder"]

_URL = re.compile(r"[a-z][a-z0-9+.-]*(::[a-z][a-z0-9+.-]*)*://.", re.ASCII | re.IGNORECASE)
#: Below a folder that is sent: name => digest of each file that is there. Hidden folders are not sent.
_SENT = ".state/sent.json"
#: Files after which that is written anew; a run that is killed sends so many again.
_NOTED_EACH = 200
#: Below a folder that was fetched: name => what the store said of it.
_FETCHED = ".fetched.json"
#: Sent last: it says that all is there.
_LAST = "metadata.csv"


def is_url(place: object) -> bool:
    """Whether a text names a place of an object store.

    Example:
        >>> is_url("s3://bucket/faces"), is_url("faces/train"), is_url("synthfaces:100")
        (True, False, False)
    """
    return isinstance(place, str) and _URL.match(place) is not None


def work_folder(url: str) -> Path:
    """The folder of the user's cache in which is made what a URL is to hold; the same for the same URL.

    Raises:
        ConfigError: the URL holds a password, or several URLs.
    """
    return _local("made", url)


def fetch(url: str) -> Path | str:
    """What a URL names, on this disk: a folder, a file, or for a pattern a pattern.

    Files that are there since an earlier call, and of which the store says the same as then, are not fetched again.

    Args:
        url: of a folder, a file, or files such as ``s3://bucket/shards/train-*.tar``.

    Raises:
        DatasetError: nothing is there, it cannot be fetched, or the disk has no room for it.
        ConfigError: the URL holds a password, or several URLs. MissingDependencyError: its store needs a package.
    """
    folder = _local("fetched", url)
    with _store(url, DatasetError) as (store, path):
        found, inner = _files(store, path)
        if not found:
            raise DatasetError(f"{url} has no file. Check the URL, and who may read it.")
        known = _record(folder / _FETCHED)
        wanted = {name: f"{info.get('size')} {store.ukey(info['name'])}" for name, info in found.items()}
        new = [name for name in found if known.get(name) != wanted[name] or not (folder / name).is_file()]
        _check_space(folder, sum(int(found[name].get("size") or 0) for name in new), url)
        for name in sorted(set(known) - set(found)):
            (folder / name).unlink(missing_ok=True)
        for name in new:
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            draft = target.with_name(f".{target.name[:80]}.{os.getpid()}.part")
            store.get_file(found[name]["name"], str(draft))
            os.replace(draft, target)
        write_json(folder / _FETCHED, wanted)
    return f"{folder}/{inner}" if inner else folder


def send_folder(folder: Path, url: str) -> int:
    """Send the files of a folder that the store does not have yet; hidden ones stay here.

    Args:
        folder: a finished one.
        url: where to.

    Returns:
        How many were sent.

    Raises:
        OutputError: they cannot be written. ConfigError, MissingDependencyError: as for :func:`fetch`.
    """
    names = sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )
    sent, new = _record(folder / _SENT), list[str]()
    try:
        for name in sorted(names, key=lambda name: (name == _LAST, name)):
            if _send(folder, name, url, sent):
                new.append(name)
                if len(new) % _NOTED_EACH == 0:
                    _note(folder, sent)
    finally:  # also of a run that is stopped
        if new:
            _note(folder, sent)
    return len(new)


def send(folder: Path, name: str, url: str) -> bool:
    """Send one file of a folder, unless the store has it as it is.

    Args:
        folder, name: the folder, and the file below it, with slashes.
        url: where the folder's files go.

    Returns:
        Whether it was sent.

    Raises:
        OutputError: it cannot be written.
    """
    sent = _record(folder / _SENT)
    is_new = _send(folder, name, url, sent)
    if is_new:
        _note(folder, sent)
    return is_new


def _send(folder: Path, name: str, url: str, sent: dict[str, str]) -> bool:
    """Send a file that is not there as it is, and add it to what was sent; whether it was."""
    digest = sha256_file(folder / name)
    with _store(url, OutputError) as (store, path):
        place = f"{path.rstrip('/')}/{name}"
        if sent.get(name) == digest and store.exists(place):
            return False
        store.makedirs(place.rpartition("/")[0], exist_ok=True)
        store.put_file(str(folder / name), place)
    sent[name] = digest
    return True


def _note(folder: Path, sent: dict[str, str]) -> None:
    (folder / _SENT).parent.mkdir(exist_ok=True)
    write_json(folder / _SENT, sent)


def _local(kind: str, url: str) -> Path:
    parts = urlsplit(url)
    if parts.password is not None or "::" in url:
        what = "a password" if parts.password is not None else "several URLs"
        raise ConfigError(f"a URL of an object store may not hold {what}. Say who you are in the store's own way.")
    last = re.sub(r"[^A-Za-z0-9._-]+", "_", url.rstrip("/").rpartition("/")[2]).strip(".") or "set"
    return cache_folder() / kind / hashlib.sha256(url.rstrip("/").encode()).hexdigest()[:16] / last[:80]


@contextmanager
def _store(url: str, kind: type[DatasetError] | type[OutputError]) -> Iterator[tuple[Any, str]]:
    """The store of a URL and the path in it; what goes wrong there is an error of ``kind``."""
    try:
        import fsspec
    except ImportError as error:
        raise MissingDependencyError(f"{url} needs fsspec: pip install 'vlbias[remote]'.") from error
    try:
        yield fsspec.core.url_to_fs(url)
    except (DatasetError, OutputError):
        raise
    except ImportError as error:
        raise MissingDependencyError(f"{url} needs a package for its store: {error}") from error
    except Exception as error:  # stores raise whatever their libraries do
        raise kind(f"{url} cannot be reached or used ({type(error).__name__}: {error!s:.300}).") from error


def _files(store: Any, path: str) -> tuple[dict[str, Mapping[str, Any]], str]:
    """Name below the folder => what the store says, of all files that are meant; and the last part if that is needed.

    What would lead out of the folder, as links do, or is hidden, is passed over.
    """
    inner = ""
    if any(sign in path for sign in "*?["):
        infos, root = store.glob(path, detail=True), path.rpartition("/")[0]
        inner = path.rpartition("/")[2]
    elif store.isfile(path):
        infos, (root, _, inner) = {path: store.info(path)}, path.rpartition("/")
    else:
        infos, root = store.find(path, detail=True), path
    found = {}
    for name, info in infos.items():
        below = PurePosixPath(str(name)[len(root) :].strip("/"))
        clean = is_text(str(below)) and not any(part.startswith(".") for part in below.parts)
        if info.get("type") == "file" and not info.get("islink") and clean and "\0" not in str(below) and below.parts:
            found[below.as_posix()] = info
    return found, inner


def _check_space(folder: Path, num_bytes: int, url: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if num_bytes > free:
        raise DatasetError(
            f"{url} takes {num_bytes / 1e9:.1f} GB, and {folder} has {free / 1e9:.1f} GB free. Free some space, or "
            "name a folder on another disk by VLBIAS_CACHE."
        )


def _record(path: Path) -> dict[str, str]:
    try:
        return {str(name): str(value) for name, value in read_object(path).items()} if path.is_file() else {}
    except (CheckpointError, json.JSONDecodeError):  # all is looked at anew
        return {}
