"""What reaches the terminal: text that it can show, warnings as notes, no command hidden in a file's name."""

from __future__ import annotations

import sys
import unicodedata
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, TextIO, cast

__all__ = ["printable", "safe_terminal"]

PACKAGE = str(Path(__file__).parents[1])
#: Categories that move the cursor, turn the direction of writing, or show nothing: controls, formats, separators of
#: lines and paragraphs, and half characters from names that are not UTF-8.
_UNSEEN = {"Cc", "Cf", "Zl", "Zp", "Cs"}


def printable(text: object, keep: str = "") -> str:
    """Text with everything escaped that a terminal would act on and nobody would see.

    Args:
        text: a path or message.
        keep: characters that are left alone, such as line ends.

    Example:
        >>> printable("a\\x1b[2Jb\\u202etxt.png")
        'a\\\\x1b[2Jb\\\\u202etxt.png'
    """
    return "".join(
        character if character in keep or unicodedata.category(character) not in _UNSEEN else _escaped(character)
        for character in str(text)
    )


def _escaped(character: str) -> str:
    return repr(character)[1:-1] if not character.isprintable() else f"\\u{ord(character):04x}"


class _Safe:
    """A stream in front of another one, which gets printable text that its encoding has."""

    def __init__(self, stream: TextIO):
        self._stream = stream

    def write(self, text: str) -> int:
        # A progress line ends in a carriage return; anywhere else it would overwrite what was said before.
        body, end = (text[:-1], "\r") if text.endswith("\r") else (text, "")
        shown = printable(body, keep="\n\t") + end
        encoding = getattr(self._stream, "encoding", None) or "utf-8"
        self._stream.write(shown.encode(encoding, "backslashreplace").decode(encoding))
        return len(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def safe_terminal() -> Iterator[None]:
    """Within the block, nothing that is printed can harm or stop the program, and warnings are notes on stderr."""
    with (
        redirect_stdout(cast(TextIO, _Safe(sys.stdout))),
        redirect_stderr(cast(TextIO, _Safe(sys.stderr))),
        warnings.catch_warnings(),
    ):
        warnings.showwarning = _note
        yield


def _note(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, file: Any = None, line: Any = None
) -> None:
    """Our own warnings as one line; those of other libraries speak to programmers."""
    if issubclass(category, UserWarning) and filename.startswith(PACKAGE):
        print(f"note: {message}", file=sys.stderr)
