"""A PostgreSQL server of its own for tests, thrown away with them; it listens to this machine alone."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

PASSWORD = "s3cret/öf@all"  # what a URL must quote


def program(name: str) -> str | None:
    """One of PostgreSQL's programs; Debian keeps them off the path."""
    places = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return shutil.which(name) or (str(places[-1]) if places else None)


def as_somebody() -> list[str]:
    """What a command begins with so that it is not root's: the server refuses to be."""
    if os.geteuid() != 0:
        return []
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        pytest.skip("PostgreSQL does not run as root, and setpriv (util-linux) is not here")
    return [setpriv, "--reuid=65534", "--regid=65534", "--clear-groups"]


@contextmanager
def server() -> Iterator[str]:
    """A running server => the URL of an empty database, password and all."""
    initdb, pg_ctl = program("initdb"), program("pg_ctl")
    if initdb is None or pg_ctl is None:
        pytest.skip("needs PostgreSQL's server (Debian: apt install postgresql)")
    pytest.importorskip("psycopg", reason="needs the extra `postgres`")
    before = as_somebody()
    with tempfile.TemporaryDirectory(prefix="postgres-") as name:
        if before:
            os.chown(name, 65534, 65534)
        with _started(initdb, pg_ctl, Path(name), before) as url:
            yield url


@contextmanager
def _started(initdb: str, pg_ctl: str, folder: Path, before: list[str]) -> Iterator[str]:
    data = folder / "data"
    word = folder / "password"
    word.write_text(PASSWORD)
    word.chmod(0o644)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def call(*words: str) -> None:
        done = subprocess.run([*before, *words], cwd=folder, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr

    call(initdb, "-D", str(data), "-U", "faces", "-A", "scram-sha-256", f"--pwfile={word}", "-E", "UTF8", "-N")
    options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off -c max_connections=50"
    call(pg_ctl, "-D", str(data), "-o", options, "-l", str(folder / "log"), "-w", "start")
    try:
        quoted = "s3cret%2F%C3%B6f%40all"
        yield f"postgresql+psycopg://faces:{quoted}@127.0.0.1:{port}/postgres"
    finally:
        call(pg_ctl, "-D", str(data), "-m", "immediate", "stop")
