"""The same photograph twice: files of equal bytes, and pictures that stand in two splits."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from pathlib import Path

from vlbias.classify import LabelledImages
from vlbias.errors import DatasetError

__all__ = ["refuse_shared_pictures", "same_bytes"]

#: More pictures of a split than this found in another one, as a share, is a mistake in the split.
MAX_SHARED = 0.01
# Bytes at either end of a file that are compared before all of it.
_END = 2048


def same_bytes(root: str | Path, names: Iterable[str]) -> dict[str, str]:
    """Files that hold the same bytes, by name: each => the first of them. Files that are alone, or missing, are not in.

    Sizes are compared first, then the ends, so that few files are read as a whole.
    """
    groups = [sorted(names)]
    for look in (_size, _ends, _digest):
        groups = [alike for group in groups for alike in _alike(root, group, look)]
    return {name: group[0] for group in groups for name in group}


def _alike(root: str | Path, names: list[str], look: Callable[[str], Hashable]) -> list[list[str]]:
    found: dict[Hashable, list[str]] = defaultdict(list)
    for name in names:
        try:
            found[look(os.path.join(root, name))].append(name)
        except OSError:  # missing or not readable: said where the picture is needed
            continue
    return [group for group in found.values() if len(group) > 1]


def _size(path: str) -> int:
    return os.stat(path).st_size


def _ends(path: str) -> bytes:
    with open(path, "rb", buffering=0) as file:
        start = file.read(_END)
        file.seek(-min(_END, os.fstat(file.fileno()).st_size), os.SEEK_END)
        return start + file.read(_END)


def _digest(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def refuse_shared_pictures(dataset: LabelledImages, splits: Mapping[str, Sequence[str]]) -> None:
    """Raise if pictures of one split stand in another as well, file by file.

    Args:
        dataset: where the pictures are; one that has no files is passed over.
        splits: name => ids.

    Raises:
        DatasetError: more than 1 % of a split's pictures are also in another one.
    """
    path_of = getattr(dataset, "path", None)
    if path_of is None:
        return
    places = [(path_of(item), name, item) for name, ids in splits.items() for item in ids]
    split_of = {str(path): (name, item) for path, name, item in places if path is not None}
    alike = same_bytes("", split_of)
    if first_alike := getattr(dataset, "first_alike", None):  # their pictures stand in shards
        split_of = {item: (name, item) for _, name, item in places}
        alike = first_alike(split_of)
    shared: dict[str, list[str]] = defaultdict(list)
    for file, first in alike.items():
        name, item = split_of[file]
        if split_of[first][0] != name:
            shared[name].append(f"'{item}' is '{split_of[first][1]}' of the split '{split_of[first][0]}'")
    for name, found in shared.items():
        if len(found) > MAX_SHARED * len(splits[name]):
            raise DatasetError(
                f"{len(found)} pictures of the split '{name}' are in another split as well: {found[0]}. Keep each in "
                "one split; load_folder deals equal files to one split where no split is given."
            )
