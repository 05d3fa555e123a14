"""File locks that die with their holder: how several workers share one folder without a server.

The lock is the operating system's (``flock``), so a worker that is killed, even with signal 9 in the middle of an
epoch, frees its locks at once: nobody waits for a time-out, and a slow worker is never taken for a dead one.
"""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType

from vlbias.errors import MissingDependencyError, OutputError

__all__ = ["FileLock"]


class FileLock:
    """An exclusive lock on one file.

    Args:
        path: the lock file, made with its folder if absent. It stays behind when released: removing a lock file that
            another process is about to open would let two processes hold "the same" lock.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "a.lock"
        >>> mine, theirs = FileLock(path), FileLock(path)
        >>> mine.acquire(wait=False), theirs.acquire(wait=False)
        (True, False)
        >>> mine.release(); theirs.acquire(wait=False)
        True
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)
        self._descriptor: int | None = None

    def acquire(self, wait: bool = True) -> bool:
        """Take the lock. ``wait=False`` returns False at once when somebody else holds it.

        Raises:
            OutputError: the file cannot be opened.
            MissingDependencyError: this platform has no ``flock`` (Windows); use a database URL as storage there.
        """
        try:
            import fcntl
        except ImportError as error:
            raise MissingDependencyError(
                "File locks need a platform with flock (Linux, macOS); use a database URL as storage here."
            ) from error
        if self._descriptor is not None:
            return True
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
        except OSError as error:
            raise OutputError(
                f"Cannot open the lock file {self.path}: {error.strerror}. Is the folder writable?"
            ) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        self._descriptor = descriptor
        return True

    def release(self) -> None:
        """Give the lock back; does nothing if it is not held."""
        if self._descriptor is not None:
            os.close(self._descriptor)  # closing the only descriptor drops the lock
            self._descriptor = None

    def __enter__(self) -> FileLock:
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
