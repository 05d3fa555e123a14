"""Progress of long work: one line with counts, rate and the time left, on stderr."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

__all__ = ["Progress", "track"]

# Seconds between two lines where stderr is not a terminal (log files, CI).
PLAIN_INTERVAL_S = 10.0
TERMINAL_INTERVAL_S = 0.2


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
        self._width = 0
        self._interval_s = TERMINAL_INTERVAL_S if self.stream.isatty() else PLAIN_INTERVAL_S

    def resume_at(self, done: float) -> None:
        """Start counting at ``done``: work that an earlier run did, which must not enter the rate."""
        self.done = self._resumed_at = done

    def update(self, n: float = 1, **fields: object) -> None:
        """Count ``n`` more units; ``fields`` (say ``loss=0.12``) are shown behind the rate."""
        self.done += n
        self.fields.update(fields)
        if time.monotonic() - self._last_print >= self._interval_s:
            self._print(end="\r" if self.stream.isatty() else "\n")

    def line(self) -> str:
        """The progress line as text."""
        elapsed_s = max(time.monotonic() - self._start, 1e-9)
        rate = (self.done - self._resumed_at) / elapsed_s
        of_total = f"/{self.total:g}" if self.total else ""
        parts = [f"{self.description}: {self.done:g}{of_total} {self.unit}", f"{rate:.3g} {self.unit}/s"]
        if self.total and self.done >= self.total:
            parts.append(f"took {_clock(elapsed_s)}")
        elif self.total and rate > 0:
            parts.append(f"{_clock((self.total - self.done) / rate)} left")
        parts += [
            f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in self.fields.items()
        ]
        return ", ".join(parts)

    def _print(self, end: str) -> None:
        self._last_print = time.monotonic()
        text = self.line()
        # A shorter line must wipe the longer one before it on a terminal.
        self.stream.write(text.ljust(self._width) + end)
        self.stream.flush()
        self._width = len(text) if end == "\r" else 0

    def close(self) -> None:
        """Print the last line."""
        self._print(end="\n")


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
