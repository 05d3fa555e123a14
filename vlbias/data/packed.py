"""Datasets whose pictures stand inside larger files: tar shards (WebDataset) and Parquet.

Nothing is unpacked to the disk, and no name in a shard is ever a path: a picture is the bytes between two places of a
file that the user named. A folder that vlbias wrote has ``data/index.json`` beside its shards, with the types of the
columns, so that labels read back exactly.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

import pandas as pd
from PIL import Image

from vlbias.data.files import inside_root, leave_out_links, list_pictures, refuse_link
from vlbias.data.folder import check_unsplit, split_of_name, split_word
from vlbias.data.metadata import COLUMN_KINDS, is_label_column, refuse_large, typed_column, typed_table
from vlbias.data.table import FaceDataset, Problem, StoredSize, hash_split, label_columns
from vlbias.errors import CheckpointError, DatasetError, ImageError, unknown
from vlbias.files import is_text, read_object
from vlbias.images import decode_image, decode_stored
from vlbias.labels import label_texts
from vlbias.originals import Encoded, Original
from vlbias.shown import printable

__all__ = ["INDEX_FILE", "PackedDataset", "Packing", "packed_kind", "read_index", "shards_of", "unpacked"]

Packed = TypeVar("Packed", bound="PackedDataset")

#: Beside the shards that vlbias wrote: their kind, the types of their columns, how many pictures each holds.
INDEX_FILE = "data/index.json"
#: No face picture is larger; what a shard says of a size may be anything.
MAX_PICTURE_BYTES = 2**26


@dataclass(frozen=True, repr=False, eq=False)
class PackedDataset(FaceDataset):
    """Faces whose pictures stand inside larger files.

    Attributes:
        shards: the files.
        places: id => where its picture stands: ``shard``, a number in ``shards``, and what its kind needs.
    """

    shards: tuple[Path, ...] = ()
    places: pd.DataFrame = None  # type: ignore[assignment]  # always given; fields behind defaults need one

    def path(self, item: str) -> Path | None:
        """``None``: a picture has no file of its own."""
        self._require([item])
        return None

    def file(self, item: str) -> Encoded:
        """The file of one face, byte by byte.

        Raises:
            UnknownNameError: no such id.
            ImageError: its shard cannot be read, or holds something else there.
        """
        self._require([item])
        data = self._bytes(item)
        if not data:
            raise ImageError(f"{self._name(item)} is empty (zero bytes). Restore its shard.")
        return Encoded(data, Path(self._name(item)).suffix.lower() or suffix_of(data))

    def image(self, item: str) -> Image.Image:
        """One face, upright RGB in its own size."""
        return decode_image(self.file(item).data, self._name(item))

    def original(self, item: str) -> Original:
        """The picture as it is stored, with what is needed to write an edited copy in the same way."""
        file, name = self.file(item), self._name(item)
        return Original.of_file(file.data, name if Path(name).suffix else f"{name}{file.suffix}")

    def stored_size(self, item: str) -> StoredSize | None:
        """How large :meth:`original` is; its file is read for it."""
        try:
            data = self.file(item).data
            return StoredSize(*decode_stored(data, item).size, len(data))
        except ImageError:  # it is told apart where the picture is needed
            return None

    def first_alike(self, items: Iterable[str]) -> dict[str, str]:
        """Each of some pictures => the first one of equal bytes; what cannot be read is not in."""
        firsts: dict[bytes, str] = {}
        found = {}
        for item in items:
            with suppress(ImageError):  # said where the picture is needed
                found[item] = firsts.setdefault(hashlib.sha256(self.file(item).data).digest(), item)
        return found

    def reason(self, item: str, error: Exception) -> str:
        """What is wrong with a picture, without where on the disk its shard lies."""
        shard = self._shard(item)
        return str(error).replace(printable(shard), printable(shard.name))

    def _bytes(self, item: str) -> bytes:
        raise NotImplementedError

    def _shard(self, item: str) -> Path:
        return self.shards[self._place(item, "shard")]

    def _place(self, item: str, column: str) -> int:
        return int(cast(int, self.places.at[item, column]))

    def _name(self, item: str) -> str:
        """The picture for people, with its ending."""
        return f"{self._shard(item)}: {self.table.at[item, 'file_name']!s}"


def suffix_of(data: bytes) -> str:
    """The ending of a picture that has no name."""
    starts = {b"\x89PNG": ".png", b"\xff\xd8": ".jpg", b"GIF8": ".gif", b"BM": ".bmp", b"II": ".tif", b"MM": ".tif"}
    return next((suffix for start, suffix in starts.items() if data.startswith(start)), ".webp")


# -- which files ------------------------------------------------------------------------------------------------------


class Packing(NamedTuple):
    """The shards of a dataset.

    Attributes:
        root: the folder that they stand in.
        shards: the files, by name.
        kinds: type of each column, of a set that vlbias wrote; else empty.
        problems: what was left out.
    """

    root: Path
    shards: list[Path]
    kinds: Mapping[str, str]
    problems: list[Problem]


def packed_kind(root: Path) -> str | None:
    """``webdataset`` or ``parquet``, of a folder that vlbias wrote so; else ``None``."""
    index = root / INDEX_FILE
    if not index.is_file() or index.is_symlink():
        return None
    kind = read_index(index).get("format")
    return str(kind) if kind in ("webdataset", "parquet") else None


def read_index(path: Path) -> dict[str, Any]:
    """``index.json``, with the types of its columns checked.

    Raises:
        DatasetError: it is damaged.
    """
    try:
        index = read_object(path)
    except CheckpointError as error:
        raise DatasetError(str(error)) from error
    columns = index.get("columns")
    if not isinstance(columns, Mapping) or not all(kind in COLUMN_KINDS for kind in columns.values()):
        raise DatasetError(f"{path} must say the type of each column ({', '.join(COLUMN_KINDS)}). Write the set anew.")
    return index


def shards_of(
    spec: str | os.PathLike[str], suffixes: Collection[str], *, skip: Collection[str] = (), follow_links: bool
) -> Packing:
    """The shards that a folder, a file or a pattern such as ``shards/train-*.tar`` means.

    Args:
        spec: what the user named.
        suffixes: of shards.
        skip: names of files that are none.
        follow_links: whether links below the folder are gone along.

    Raises:
        DatasetError: there is none.
    """
    path = Path(spec)
    links: list[str] = []
    if path.is_dir():
        root = path
        names = list_pictures(root, suffixes=suffixes, follow_links=follow_links, left_out=links)
        shards = [root / name for name in names if Path(name).name not in skip]
    elif path.is_file():
        root, shards = path.parent, [path]
    else:
        root = path.parent
        found = sorted(root.glob(path.name)) if root.is_dir() and any(sign in path.name for sign in "*?[") else []
        links = [entry.name for entry in found if entry.is_symlink() and not follow_links]
        shards = [entry for entry in found if entry.is_file() and entry.name not in links]
    problems = leave_out_links(links, root=root, num_left=len(shards))
    if not shards:
        raise DatasetError(f"{spec} has no {' or '.join(sorted(suffixes))} file. Give shards or the folder of them.")
    kinds: Mapping[str, str] = {}
    for index in (root / INDEX_FILE, root / Path(INDEX_FILE).name):
        if index.is_file():
            kinds = read_index(refuse_link(index, follow_links=follow_links, root=root))["columns"]
            break
    return Packing(root, shards, kinds, problems)


# -- from rows to a dataset -------------------------------------------------------------------------------------------


def unpacked(
    cls: type[Packed],
    packing: Packing,
    rows: pd.DataFrame,
    places: pd.DataFrame,
    *,
    unsplit: str,
    attributes: Sequence[str] | None,
) -> Packed:
    """A dataset of what the shards hold.

    Args:
        cls: its class.
        packing: the shards.
        rows: one a picture, labels as they stand there; ``file_name`` may be one of them.
        places: where each stands, in the order of the rows, with its name inside of its shard as ``name``.
        unsplit: see ``load_folder``.
        attributes: columns that are labels; ``None`` for all.

    Raises:
        DatasetError: no picture. LabelError: a split of an unknown name. UnknownNameError: no such column.
    """
    check_unsplit(unsplit)
    if not len(rows):
        raise DatasetError(f"{packing.root} has no picture in its shards ({len(packing.problems)} problems).")
    refuse_large(packing.root, len(rows), len(rows.columns))
    names, problems = _names(packing, rows, places)
    keep = [name is not None for name in names]
    ids = pd.Index([name for name in names if name is not None], name="id")
    rows, places = rows[keep], places[keep].drop(columns="name").set_axis(ids)
    table = _typed(rows.drop(columns="file_name", errors="ignore"), packing.kinds).set_axis(ids)
    table.insert(0, "file_name", ids.tolist())
    faces = cls(
        packing.root.resolve().name,
        table.assign(split="train"),  # until the pictures can be looked at
        root=None,
        problems=[*packing.problems, *problems],
        attributes=[name for name in label_columns(table) if is_label_column(table[name])],
        shards=tuple(packing.shards),
        places=places,
    )
    for name in attributes or ():
        if name not in table.columns:
            raise unknown("attribute", name, label_columns(table), where=str(packing.root))
    table.insert(1, "split", _splits(faces, table.pop("split") if "split" in table else None, unsplit))
    labels = faces.attributes if attributes is None else list(attributes)
    return replace(faces, table=table, attributes=labels)


def _names(packing: Packing, rows: pd.DataFrame, places: pd.DataFrame) -> tuple[list[str | None], list[Problem]]:
    """The id of each picture: the file name that it says, else where it stands; ``None`` for one that is left out."""
    stems = [shard.relative_to(packing.root).with_suffix("").as_posix() for shard in packing.shards]
    given = rows["file_name"].tolist() if "file_name" in rows else [None] * len(rows)
    names: list[str | None] = []
    problems: list[Problem] = []
    taken: set[str] = set()
    for name, shard, inner in zip(given, places["shard"], places["name"], strict=True):
        clean = inside_root(name) if isinstance(name, str) and is_text(name) and "\n" not in name else None
        clean = clean or inside_root(f"{stems[shard]}/{inner}")
        if clean is None or not is_text(clean) or clean in taken:
            code = "duplicate_name" if clean in taken else "malformed_name"
            problems.append(Problem(f"{packing.shards[shard].name}: {inner!r:.80}", code, "left out"))
            names.append(None)
            continue
        taken.add(clean)
        names.append(clean)
    return names, problems


def _typed(rows: pd.DataFrame, kinds: Mapping[str, str]) -> pd.DataFrame:
    """Columns in one type each: what the index says, else what they hold."""
    table = typed_table(rows[[name for name in rows if name not in kinds]])
    told = {name: typed_column(rows[name], kind) for name, kind in kinds.items() if name in rows}
    return pd.DataFrame({name: told[name] if name in told else table[name] for name in map(str, rows)}, rows.index)


def _splits(faces: PackedDataset, said: Iterable[object] | None, unsplit: str) -> list[str]:
    """The split of each picture: what it says, else the name of its shard, else as ``unsplit`` says."""
    words = [None] * len(faces) if said is None else label_texts(pd.Series(said)).tolist()
    of_shard = [split_of_name(shard.stem) or split_of_name(shard.parent.name) for shard in faces.shards]
    splits = [
        split_word(word, faces.name, item) or of_shard[shard]
        for word, item, shard in zip(words, faces.ids, faces.places["shard"], strict=True)
    ]
    if unsplit != "hash":
        return [split or unsplit for split in splits]
    dealt = [item for item, split in zip(faces.ids, splits, strict=True) if split is None]
    first = faces.first_alike(dealt)
    return [split or hash_split(first.get(item, item)) for item, split in zip(faces.ids, splits, strict=True)]
