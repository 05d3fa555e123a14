"""Progress of long work: one line with counts, rate and the time left, on stderr or below a notebook's cell."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TextIO

__all__ = ["Progress", "listening", "track"]

# Seconds between two lines where stderr is not a terminal (log files, CI).
PLAIN_INTERVAL_S = 10.0
TERMINAL_INTERVAL_S = 0.2


#: The time left is not guessed from less than this: the first units also pay for what is loaded once.
SETTLING_S = 2.0


#: Who else wants to know of work that goes on in this context, such as a page with a bar of its own.
_LISTENER: ContextVar[Callable[[Progress], None] | None] = ContextVar("_LISTENER", default=None)


@contextmanager
def listening(listener: Callable[[Progress], None]) -> Iterator[None]:
    """Within the block, ``listener`` is called whenever work counts on, however deep in the library."""
    token = _LISTENER.set(listener)
    try:
        yield
    finally:
        _LISTENER.reset(token)


class Progress:
    """Counts done work and prints rate and ETA; use it through :func:`track`."""

    def __init__(self, total: float | None, description: str, unit: str, stream: TextIO | None = None):
        self.total, self.description, self.unit = total, description, unit
        self.done: float = 0
        self.fields: dict[str, Any] = {}
        self.stream = stream or sys.stderr
        self._start = time.monotonic()
        self._last_print = self._start
        self._resumed_at: float = 0
        self._first: tuple[float, float] | None = None
        self._width = 0
        self._cell = _notebook_cell() if stream is None else None
        self._is_live = self._cell is not None or self.stream.isatty()
        self._interval_s = TERMINAL_INTERVAL_S if self._is_live else PLAIN_INTERVAL_S

    def resume_at(self, done: float) -> None:
        """Start counting at ``done``: work that an earlier run did, which must not enter the rate."""
        self.done = self._resumed_at = done

    def update(self, n: float = 1, **fields: object) -> None:
        """Count ``n`` more units; ``fields`` (say ``loss=0.12``) are shown behind the rate."""
        self.done += n
        self.fields.update(fields)
        if (listener := _LISTENER.get()) is not None:
            listener(self)
        now = time.monotonic()
        self._first = self._first or (now, self.done)
        is_last = self.total is not None and self.done >= self.total  # close() prints that one
        if now - self._last_print >= self._interval_s and not is_last:
            self._print(end="\r" if self._is_live else "\n")

    def line(self) -> str:
        """The progress line as text."""
        elapsed_s = max(time.monotonic() - self._start, 1e-9)
        rate, left_s = (self.done - self._resumed_at) / elapsed_s, self._left_s()
        of_total = f"/{self.total:g}" if self.total else ""
        parts = [f"{self.description}: {self.done:g}{of_total} {self.unit}", f"{rate:.3g} {self.unit}/s"]
        if self.total and self.done >= self.total:
            parts.append(f"took {_clock(elapsed_s)}")
        elif left_s is not None:
            parts.append(f"{_clock(left_s)} left")
        parts += [
            f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in self.fields.items()
        ]
        return ", ".join(parts)

    def _left_s(self) -> float | None:
        """Seconds left at the rate since the first units were done; ``None`` while too little is known."""
        if self.total is None or self._first is None:
            return None
        since_s, done = time.monotonic() - self._first[0], self.done - self._first[1]
        if since_s < SETTLING_S or done <= 0:
            return None
        return (self.total - self.done) * since_s / done

    def _print(self, end: str) -> None:
        self._last_print = time.monotonic()
        text = self.line()
        if self._cell is not None:
            self._cell(text)
            return
        # A shorter line must wipe the longer one before it on a terminal.
        self.stream.write(text.ljust(self._width) + end)
        self.stream.flush()
        self._width = len(text) if end == "\r" else 0

    def close(self) -> None:
        """Print the last line."""
        self._print(end="\n")


def _notebook_cell() -> Callable[[str], None] | None:
    """In a notebook, what puts a text into one updating line below the cell; elsewhere ``None``."""
    # Nothing is imported: where there is a notebook, these are there.
    if "ipykernel" not in sys.modules or "IPython" not in sys.modules:
        return None
    display = sys.modules["IPython"].display
    shell = sys.modules["IPython"].get_ipython()
    if shell is None or type(shell).__name__ != "ZMQInteractiveShell":
        return None
    handle: Any = None

    def show(text: str) -> None:
        nonlocal handle
        shown = {"text/plain": text}
        if handle is None:
            handle = display.display(shown, raw=True, display_id=True)
        else:
            handle.update(shown, raw=True)

    return show


@contextmanager
def track(
    total: float | None, description: str, unit: str = "it", stream: TextIO | None = None, *, show: bool = True
) -> Iterator[Progress]:
    """Show progress while the block runs.

    Args:
        total: units of work in all; ``None`` if it is not known (no ETA is shown then).
        description: what is going on, two or three words.
        unit: what is counted, plural ("images").
        stream: where lines go; ``None`` for stderr.
        show: False counts in silence.
    """
    progress = Progress(total, description, unit, stream if show else io.StringIO())
    try:
        yield progress
    finally:
        progress.close()


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
