"""Databases of one file from strangers: their tables may run nothing, and their journals may lead nowhere."""

from __future__ import annotations

import os
import re
import sqlite3
from pathlib import Path

from vlbias.errors import OutputError
from vlbias.files import AnyPath, open_plain, refuse_links

__all__ = ["refuse_large", "refuse_programs", "refuse_side_files"]

#: Ends a journal that names a further one, which SQLite removes when it takes the journal back: any file at all.
_NAMES_ANOTHER = bytes.fromhex("d9d505f920a163d7")
#: What a table or an index can compute without a query: columns, and functions that make much of little.
_COMPUTES = re.compile(
    r"\bvirtual\b|\bgenerated\b|\bas\s*\(|\b(randomblob|zeroblob|printf|format|hex|replace|char|concat|concat_ws|"
    r"load_extension|like|glob|regexp)\s*\(",
    re.IGNORECASE,
)
#: Longest value that is read, in bytes.
MAX_VALUE_BYTES = 2**24
#: Of a database that is read as a whole.
MAX_BYTES = 2**28


def refuse_side_files(path: AnyPath) -> None:
    """Refuse links beside a database, and a journal that would have another file removed; call it before opening.

    Raises:
        OutputError: names the file.
    """
    journal = Path(f"{path}-journal")
    refuse_links(journal, f"{path}-wal", f"{path}-shm")
    if journal.is_file():
        with open_plain(journal) as file:
            file.seek(max(os.fstat(file.fileno()).st_size - len(_NAMES_ANOTHER), 0))
            if file.read() == _NAMES_ANOTHER:
                raise OutputError(
                    f"{journal} would have SQLite remove another file. Remove it, or give another database."
                )


def refuse_programs(database: sqlite3.Connection, path: AnyPath) -> None:
    """Refuse views, triggers and tables that compute: they would run whatever somebody wrote into them.

    Raises:
        OutputError: names the database, and what it holds.
        sqlite3.DatabaseError: it is damaged, or none.
    """
    database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_VALUE_BYTES)
    try:
        entries = database.execute("SELECT type, sql FROM sqlite_master").fetchall()
    except UnicodeDecodeError as error:  # Python makes text of what SQLite says of it
        damage = sqlite3.DatabaseError("its schema is not text")
        damage.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise damage from error
    for kind, sql in entries:
        if kind not in ("table", "index") or _COMPUTES.search(str(sql)):
            raise OutputError(f"{path} contains a {kind} that would run on its own. Give another database.")


def refuse_large(database: sqlite3.Connection, path: AnyPath, max_rows: int) -> None:
    """Refuse what is too much to be read as a whole: too many bytes, rows, or a value that is too long.

    Args:
        database: one that :func:`refuse_programs` let pass.
        path: its file.
        max_rows: that its tables may have together.

    Raises:
        OutputError: names the database, and what there is too much of.
        sqlite3.DatabaseError: it is damaged, or a value is longer than is read.
    """
    files = [Path(path), Path(f"{path}-wal")]
    if (num_bytes := sum(file.stat().st_size for file in files if file.exists())) > MAX_BYTES:
        raise OutputError(f"{path} has {num_bytes:,} bytes; at most {MAX_BYTES:,} are read. Give another database.")
    names = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    for table in (_quoted(name) for (name,) in names):
        (count,) = database.execute(f"SELECT count(*) FROM (SELECT 1 FROM {table} LIMIT {max_rows + 1})").fetchone()
        max_rows -= count
        if max_rows < 0:
            raise OutputError(f"{path} has more rows than are read. Give another database.")
        columns = [_quoted(column[1]) for column in database.execute(f"PRAGMA table_info({table})")]
        longest = ", ".join(f"max(length({column}))" for column in columns)
        lengths = database.execute(f"SELECT {longest} FROM {table}").fetchone()  # of too long a text this is an error
        if max((length or 0 for length in lengths), default=0) > MAX_VALUE_BYTES:
            raise sqlite3.DataError("string or blob too big")


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
