"""Jobs that workers of several hosts share through a PostgreSQL server, and passwords that are not repeated.

A :class:`PostgresStore` is a :class:`vlbias.runstore.RunStore` without a file. Who works on a key holds an advisory
lock of the server, which drops it when the worker dies and its connection with it.
"""

from __future__ import annotations

import json
import re
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from vlbias.errors import ConfigError, MissingDependencyError, OutputError
from vlbias.files import AnyPath
from vlbias.runstore import RunStore, differences

__all__ = ["PostgresStore", "is_url", "named_job", "open_store", "shown_error", "with_driver", "without_password"]

_TABLES = """
CREATE TABLE IF NOT EXISTS vlbias_jobs (kind text PRIMARY KEY, job text NOT NULL);
CREATE TABLE IF NOT EXISTS vlbias_runs (
    kind text REFERENCES vlbias_jobs, run text, record text NOT NULL, PRIMARY KEY (kind, run)
);
"""
#: Version of the tables; a job of another version is refused.
FORMAT = 1


def is_url(location: object) -> bool:
    """Whether a storage is a database's URL, not a file."""
    return "://" in str(location)


def named_job(location: str, name: str) -> tuple[str, str]:
    """A database's URL, and the name of the job in it: what stands behind a ``#``, else the one that is given.

    Raises:
        ConfigError: it is no name of letters, digits, ``-``, ``_`` and ``.``.

    Example:
        >>> named_job("sqlite:///study.db#second", "search")
        ('sqlite:///study.db', 'second')
    """
    url, mark, given = location.partition("#")
    if mark and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", given):
        raise ConfigError(
            f"A name of a job must be of up to 64 letters, digits, '-', '_' and '.'; got '{given:.80}'. "
            "In a password, # is written %23."
        )
    return url, given or name


def without_password(text: str) -> str:
    """A URL, or a text that quotes one, as it may be shown.

    Example:
        >>> without_password("postgresql://me:secret@host/db?sslmode=require&password=secret")
        'postgresql://me:***@host/db?sslmode=require&password=***'
    """
    text = re.sub(r"(://[^/?#\s:@]*:)[^\s]*@", r"\1***@", text)
    return re.sub(r"(?i)\b((?:ssl)?pass(?:word|wd)?=)[^&\s]+", r"\1***", text)


def shown_error(error: BaseException, url: str) -> str:
    """The first line of what a database says, in which the password of its URL does not stand."""
    text = without_password((str(error).strip().splitlines() or [type(error).__name__])[0])
    for word in _passwords(url):
        text = text.replace(word, "***")
    return text


def _passwords(url: str) -> set[str]:
    found = re.findall(r"://[^/?#\s:@]*:(\S*)@", url) + re.findall(r"(?i)pass(?:word|wd)?=([^&\s]+)", url)
    return {word for text in found for word in (text, urllib.parse.unquote(text)) if word}


def with_driver(url: str) -> str:
    """A URL that names no driver gets the one of the extra ``postgres``.

    Example:
        >>> with_driver("postgres://host/db"), with_driver("sqlite:///study.db")
        ('postgresql+psycopg://host/db', 'sqlite:///study.db')
    """
    return re.sub(r"^postgres(ql)?://", "postgresql+psycopg://", url)


def open_store(
    location: AnyPath | None,
    kind: str,
    job: Mapping[str, object],
    decode: Callable[[dict[str, object]], dict[str, object]] = dict,
    *,
    folder: AnyPath | None = None,
) -> RunStore | PostgresStore:
    """Where a job's records lie: a file, a server, or memory.

    Args:
        location: a file, a URL such as ``postgresql+psycopg://user@host/database``, or ``None`` for memory. A URL may
            end in ``#NAME``: a database has one job of each kind and name.
        kind, job, decode: as those of :class:`vlbias.runstore.RunStore`.
        folder: with a URL, a folder that all workers share, for what is no record.

    Raises:
        ConfigError: a URL of another kind of database, or one that does not answer; or the place holds another job.
        MissingDependencyError: the extra ``postgres`` is not installed.
    """
    if location is not None and is_url(location):
        return PostgresStore(str(location), kind, job, decode, folder=folder)
    return RunStore(location, kind, job, decode)


class PostgresStore:
    """Records by key in a PostgreSQL database, which has one job of each kind and name.

    Args:
        url: of the database, with or without the job's name behind a ``#``; a password may stand in it, in
            ``~/.pgpass``, or in ``$PGPASSWORD``.
        kind, job, decode: as those of :class:`vlbias.runstore.RunStore`.
        folder: shared by all workers, for what belongs to the job and is no record; ``None`` for none.

    Raises:
        ConfigError: no PostgreSQL server answers there, or it holds another job; what differs is named.
        MissingDependencyError: the extra ``postgres`` is not installed.
    """

    def __init__(
        self,
        url: str,
        kind: str,
        job: Mapping[str, object],
        decode: Callable[[dict[str, object]], dict[str, object]] = dict,
        *,
        folder: AnyPath | None = None,
    ):
        url, name = named_job(url, "")
        place = f"{kind}#{name}" if name else kind
        self._url, self._kind, self._decode = url, place, decode
        self.folder = None if folder is None else Path(folder)
        self._connection = _connected(url)
        with self._asking():
            self._connection.execute("SELECT pg_advisory_lock(hashtextextended(%s, 0))", [f"vlbias/{place}"])
            try:
                self._connection.execute(_TABLES)
                self._connection.execute(
                    "INSERT INTO vlbias_jobs VALUES (%s, %s) ON CONFLICT DO NOTHING",
                    [place, json.dumps({"format": FORMAT, **job})],
                )
                row = self._connection.execute("SELECT job FROM vlbias_jobs WHERE kind = %s", [place]).fetchone()
            finally:
                self._connection.execute("SELECT pg_advisory_unlock(hashtextextended(%s, 0))", [f"vlbias/{place}"])
        phrases = differences(json.loads(row[0]), {"format": FORMAT, **job})
        if phrases:
            taken = f"The name '{name}' in the" if name else "The"
            raise ConfigError(
                f"{taken} database {without_password(url)} belongs to another job of `vlbias {kind}`: "
                f"{phrases[0]}. Give this job a name of its own (--study-name, or #NAME at the end of the URL), or the "
                "settings that the other was begun with."
            )

    def claim(self, key: str) -> AbstractContextManager[object] | None:
        """The lock of a key that is neither done nor in another worker's hands; ``None`` otherwise."""
        name = f"vlbias/{self._kind}/{key}"
        with self._asking():
            row = self._connection.execute("SELECT pg_try_advisory_lock(hashtextextended(%s, 0))", [name]).fetchone()
            if not row[0]:
                return None
            done = self._connection.execute(
                "SELECT 1 FROM vlbias_runs WHERE kind = %s AND run = %s", [self._kind, key]
            ).fetchone()
        lock = self._held(name)
        if done is None:
            return lock
        with lock:
            return None

    @contextmanager
    def _held(self, name: str) -> Iterator[None]:
        try:
            yield
        finally:
            with self._asking():
                self._connection.execute("SELECT pg_advisory_unlock(hashtextextended(%s, 0))", [name])

    def add(self, key: str, record: Mapping[str, object], *, seconds: float | None = None) -> None:
        """Store what became of a key, as plain values, and how long it took.

        Raises:
            OutputError: the server went away.
        """
        timed = {} if seconds is None else {"seconds": seconds}
        with self._asking():
            self._connection.execute(
                "INSERT INTO vlbias_runs VALUES (%s, %s, %s) ON CONFLICT DO NOTHING",
                [self._kind, key, json.dumps({**record, **timed})],
            )

    def read(self) -> dict[str, dict[str, Any]]:
        """Records by key, in the order of the keys."""
        with self._asking():
            rows = self._connection.execute(
                "SELECT run, record FROM vlbias_runs WHERE kind = %s ORDER BY run", [self._kind]
            ).fetchall()
        return {key: self._decode(json.loads(record)) for key, record in rows}

    def times(self) -> dict[str, float]:
        """Seconds by key, of those for which they are known."""
        return {key: record["seconds"] for key, record in self.read().items() if "seconds" in record}

    @contextmanager
    def _asking(self) -> Iterator[None]:
        """Errors of the server in the library's own words."""
        import psycopg

        try:
            yield
        except psycopg.Error as error:
            raise OutputError(
                f"The database {without_password(self._url)} does not answer as it should: "
                f"{shown_error(error, self._url)}. What is finished is kept; run the same command again."
            ) from None


def _connected(url: str) -> Any:
    url = with_driver(url)
    if not url.startswith("postgresql+psycopg://"):
        raise ConfigError(
            f"`storage` must be a file or a URL such as postgresql+psycopg://user@host/database; got "
            f"{without_password(url)}."
        )
    try:
        import psycopg
    except ImportError as error:
        raise MissingDependencyError("A PostgreSQL storage needs psycopg: pip install 'vlbias[postgres]'.") from error
    try:
        return psycopg.connect(url.replace("+psycopg", "", 1), autocommit=True, connect_timeout=10)
    except psycopg.Error as error:
        raise ConfigError(f"Cannot open the database {without_password(url)}: {shown_error(error, url)}") from None
