"""What a call does beside its result: which traps it steps into, what it changes elsewhere, whom it asks.

Pictures, tables and tensors are read by libraries in C++ and Rust that Python sees nothing of, so the kernel itself
(inotify) tells who opens a file of a trap. What is written and asked is told by Python's audit events.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

__all__ = ["Seen", "watched"]

_OPENED = 0x001 | 0x020  # IN_ACCESS, IN_OPEN
_CHANGED = 0x002 | 0x040 | 0x080 | 0x100 | 0x200 | 0x400  # IN_MODIFY, MOVED_FROM, MOVED_TO, CREATE, DELETE, DELETE_SELF
_EVENT = struct.Struct("iIII")

_ASKS = ("socket.connect", "socket.getaddrinfo", "socket.gethostby", "socket.sendto", "socket.sendmsg")
_STARTS = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork")
#: Event => which of its arguments are paths that are changed.
_WRITES = {
    "os.remove": (0,),
    "os.rmdir": (0,),
    "os.mkdir": (0,),
    "os.rename": (0, 1),
    "os.link": (1,),
    "os.symlink": (1,),
    "os.truncate": (0,),
    "os.chmod": (0,),
    "shutil.rmtree": (0,),
}
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
#: Places that libraries keep for themselves.
_OWN = ("/dev/null", "/dev/shm", "/proc/self", "__pycache__", "matplotlib", "fontconfig", "torchinductor")


class Seen:
    """What was noticed: sentences, none where all is well."""

    def __init__(self, may_write: tuple[Path, ...]):
        self.may_write = [os.path.realpath(place) for place in may_write]
        self.problems: list[str] = []

    def note(self, event: str, arguments: tuple) -> None:
        """Look at one audit event; the network is closed."""
        if event.startswith(_ASKS):
            self.problems.append(f"{event} {arguments[1:]!r:.200}")
            raise PermissionError("the network is closed")
        if event.startswith(_STARTS):
            self.problems.append(f"{event} {arguments!r:.200}")
        if event == "open" and isinstance(arguments[2], int) and arguments[2] & _WRITING:
            self._wrote(event, arguments[0])
        for place in _WRITES.get(event, ()):
            # numbers are files that are open, and what is relative to an open folder is within `rmtree`: both were seen
            if isinstance(arguments[place], str | bytes | os.PathLike) and (
                os.path.isabs(os.fsdecode(arguments[place])) or arguments[-1] == -1
            ):
                self._wrote(event, arguments[place])

    def _wrote(self, event: str, path: object) -> None:
        if not isinstance(path, str | bytes | os.PathLike) or any(name in os.fsdecode(path) for name in _OWN):
            return
        text = os.fsdecode(path)
        real = os.path.realpath(text)
        if event != "open":  # a link that is replaced or removed is an entry of its folder
            real = os.path.join(os.path.realpath(os.path.dirname(text)), os.path.basename(text))
        if not any(real == root or real.startswith(root + os.sep) for root in self.may_write):
            self.problems.append(f"{event} {text}")


_now: Seen | None = None


def _hook(event: str, arguments: tuple) -> None:
    if _now is not None:
        _now.note(event, arguments)


# an audit hook cannot be taken away again; it is silent outside of `watched`
sys.addaudithook(_hook)


@contextlib.contextmanager
def watched(*may_write: Path, traps: tuple[Path, ...] = ()) -> Iterator[Seen]:
    """Note what happens in the block.

    Args:
        may_write: folders and files that may be changed; nothing else.
        traps: folders of which nobody may open, change, add or remove a file.
    """
    global _now
    seen, kernel = Seen(may_write), _Kernel(traps)
    _now = seen
    try:
        yield seen
    finally:
        _now = None
        seen.problems += kernel.events()


class _Kernel:
    """inotify on some folders and all below them."""

    def __init__(self, folders: tuple[Path, ...]):
        libc = ctypes.CDLL(None, use_errno=True)
        self.file = libc.inotify_init1(os.O_NONBLOCK)
        assert self.file >= 0
        self.places: dict[int, str] = {}
        # listed first: to list a folder opens it
        for folder in [folder for top in folders for folder, _, _ in os.walk(top)]:
            number = libc.inotify_add_watch(self.file, os.fsencode(folder), _OPENED | _CHANGED)
            assert number >= 0, os.strerror(ctypes.get_errno())
            self.places[number] = folder

    def events(self) -> list[str]:
        """What happened, once each."""
        data = b""
        with contextlib.suppress(BlockingIOError):
            while piece := os.read(self.file, 65536):
                data += piece
        os.close(self.file)
        found, place = [], 0
        while place < len(data):
            number, mask, _, length = _EVENT.unpack_from(data, place)
            name = data[place + _EVENT.size : place + _EVENT.size + length].rstrip(b"\0").decode()
            what = "changed" if mask & _CHANGED else "opened"
            found.append(f"{what} {os.path.join(self.places.get(number, '?'), name)}")
            place += _EVENT.size + length
        return list(dict.fromkeys(found))
