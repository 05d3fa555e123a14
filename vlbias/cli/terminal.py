"""What reaches the terminal: text that it can show, warnings as notes, no command hidden in a file's name."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, TextIO, cast

from vlbias.shown import printable

__all__ = ["safe_terminal"]

PACKAGE = str(Path(__file__).parents[1])


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
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: object = None,
    line: object = None,
) -> None:
    """Our own warnings as one line; those of other libraries speak to programmers."""
    if issubclass(category, UserWarning) and filename.startswith(PACKAGE):
        print(f"note: {printable(message)}", file=sys.stderr)
