"""Which folders a page may open: those that were given when it was started, and what lies below them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vlbias.errors import DatasetError
from vlbias.shown import printable

__all__ = ["allowed_folder", "checked_roots"]


def checked_roots(roots: Sequence[Path]) -> tuple[Path, ...]:
    """Folders as they are called everywhere on this machine.

    Raises:
        DatasetError: one of them is no folder.
    """
    for root in roots:
        if not root.is_dir():
            raise DatasetError(f"{root} is not a folder. Give folders of datasets or of finished runs.")
    return tuple(root.resolve() for root in roots)


def allowed_folder(typed: str, roots: Sequence[Path]) -> Path:
    """The folder that somebody typed into the page.

    Args:
        typed: a path, absolute, or relative to one of the roots.
        roots: of :func:`checked_roots`.

    Raises:
        DatasetError: it lies elsewhere, by its name or through a link, or it is not there. Both read alike, so that
            the page does not tell what else is on the disk.
    """
    for root in roots:
        try:
            place = (root / typed.strip()).resolve()
        except (OSError, ValueError):  # a loop of links, a null character
            continue
        if place.is_relative_to(root) and place.is_dir():
            return place
    listed = ", ".join(printable(root) for root in roots) or "none"
    raise DatasetError(
        f"'{typed}' is not a folder that this page may open. It may open what it was started with, and all below: "
        f"{listed}. Start it with further ones: vlbias app FOLDER..."
    )
