"""Where pictures of a balanced set lie: in the folders of the splits, or in class folders inside them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from vlbias.data import FaceDataset
from vlbias.errors import PlanError
from vlbias.labels import label_text

__all__ = ["Placing", "check_classes", "pictures_below", "placing"]

#: (split, label of the target) => folder of the output, with slashes.
Placing = Callable[[str, object], str]


def placing(layout: str) -> Placing:
    """Where faces go: ``flat`` into the folder of their split, ``class-folders`` into one of their class inside it.

    Example:
        >>> placing("class-folders")("train", "not smiling"), placing("flat")("train", 1)
        ('train/not smiling', 'train')
    """
    return partial(_folder, by_class=layout == "class-folders")


def _folder(split: str, label: object, *, by_class: bool) -> str:
    return f"{split}/{_folder_name(str(label_text(label)))}" if by_class else split


def _folder_name(label: str) -> str:
    """A label as the name of one visible folder; two labels never share one."""
    return re.sub(r"[^\w ,=+@-]|^ | $", lambda found: f"%{ord(found[0]):02x}", label)


def check_classes(layout: str, faces: FaceDataset | None, target: str) -> None:
    """Refuse class folders for faces without a class.

    Raises:
        PlanError: some face has no target label.
    """
    if layout != "class-folders" or faces is None:
        return
    missing = int(faces.column(target).isna().sum())
    if missing:
        raise PlanError(
            f"layout='class-folders' needs a class for each face, and {missing:,} have no '{target}'. Leave them out "
            "of the dataset, or use layout='flat' (--layout flat)."
        )


def pictures_below(folder: Path) -> Iterator[str]:
    """Names of the files below a folder that are no links, relative to it, with slashes."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink():
            yield path.relative_to(folder).as_posix()
