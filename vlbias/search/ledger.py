"""A ledger of looks at the test set. Who looks again and again finds something in the end.

The chance of error that the caller allows is spent over all looks: half of it on the first, a quarter on the second,
and so on, so that however often one looks the chance of any false claim stays below it. Reading the same candidates and
refits once more is no new look.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vlbias.errors import CheckpointError
from vlbias.files import read_json, write_json
from vlbias.locks import FileLock

__all__ = ["Ledger", "level_of_look"]


def level_of_look(level: float, look: int) -> float:
    """How sure a claim of the n-th look must be, so that all looks together hold ``level``.

    Example:
        >>> [round(level_of_look(0.95, look), 5) for look in (1, 2, 3)]
        [0.975, 0.9875, 0.99375]
    """
    return 1 - (1 - level) / 2**look


class Ledger:
    """Looks at the test set of one study.

    Args:
        folder: of the study; the ledger is its ``looks.json``. None keeps it in memory.
    """

    def __init__(self, folder: Path | None):
        self.path = None if folder is None else folder / "looks.json"
        self._looks: list[dict[str, Any]] = []

    @property
    def looks(self) -> list[dict[str, Any]]:
        """All looks so far, in order: candidates and refits of each.

        Raises:
            CheckpointError: the file is not a ledger.
        """
        if self.path is None or not self.path.is_file():
            return list(self._looks)
        found = read_json(self.path)
        if not isinstance(found, list) or not all(isinstance(look, dict) for look in found):
            raise CheckpointError(f"{self.path} is not a ledger of looks. Put back the file that the study wrote.")
        return found

    def enter(self, candidates: Sequence[int], refits: int) -> int:
        """Enter a look unless it was made before; returns its number, from 1."""
        look = {"candidates": sorted(candidates), "refits": refits}
        if self.path is None:
            self._looks = _with(self._looks, look)
            return self._looks.index(look) + 1
        with FileLock(self.path.with_suffix(".lock")):
            looks = _with(self.looks, look)
            write_json(self.path, looks)
        return looks.index(look) + 1


def _with(looks: list[dict[str, Any]], look: dict[str, Any]) -> list[dict[str, Any]]:
    return looks if look in looks else [*looks, look]
