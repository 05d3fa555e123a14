"""FaceDataset: one label table for every dataset, and the pictures behind it.

A dataset is a table with one row per face. Pictures are read when they are asked for, never before, so that opening a
folder of 100,000 photographs costs a listing and a label file.
"""

from __future__ import annotations

import difflib
import heapq
import re
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, Self, TypeVar

import numpy as np
import pandas as pd
import torch
from PIL import Image

from vlbias.alignment import Similarity
from vlbias.arguments import checked_call
from vlbias.errors import ConfigError, DatasetError, ImageError, LabelError, unknown
from vlbias.images import in_turn, open_image, picture_size, read_picture, to_tensor
from vlbias.labels import typed_labels
from vlbias.originals import Encoded, Original
from vlbias.progress import track
from vlbias.seeds import item_seed
from vlbias.shown import Glance, Shown, plural, printable

__all__ = [
    "PROVENANCE",
    "SPLITS",
    "FaceDataset",
    "JoinedDataset",
    "Problem",
    "Problems",
    "StoredSize",
    "hash_split",
    "join",
]

Seen = TypeVar("Seen")

SPLITS = ("train", "val", "test")

#: Words of the column ``origin`` that the pipeline writes.
ORIGINS = ("real", "edited", "sampled", "copied", "round-trip", "counterfactual")

#: Columns that say where a row comes from; they are no attributes of the face. Scores are named ``score_*``.
PROVENANCE = frozenset({"origin", "source_id", "path", "strength", "seed", "face_box"})

#: Faces by their ids, or by a boolean mask.
Selection = Sequence[str] | Sequence[bool] | np.ndarray | pd.Series | pd.Index

# Decoding releases the interpreter, so a few threads help; more only fight over memory.
_NUM_THREADS = 4


#: Edges in pixels that :meth:`FaceDataset.tensor` gives, and bytes that one of its tensors may take.
MAX_SIZE, MAX_TENSOR_BYTES = 4096, 2**35


def check_tensor(num_items: int, size: int) -> None:
    """Refuse a tensor of pictures that cannot be meant, before memory is taken.

    Raises:
        ConfigError: ``size`` out of range, or too many pictures of that size.
    """
    if isinstance(size, bool) or not isinstance(size, (int, np.integer)) or not 1 <= size <= MAX_SIZE:
        raise ConfigError(f"`size` must be a whole number of pixels in 1..{MAX_SIZE}; got {size!r:.60}.")
    num_bytes = num_items * 3 * int(size) ** 2 * 4
    if num_bytes > MAX_TENSOR_BYTES:
        raise ConfigError(
            f"{num_items} pictures of {size} px take {num_bytes / 2**30:.0f} GiB at once. Ask for fewer at a time."
        )


@dataclass(frozen=True)
class Problem:
    """A file or row that was left out of a dataset, or something else to look at.

    Attributes:
        file: which, relative to the dataset's root.
        code: why, as a fixed word: ``malformed_name``, ``label_out_of_range``, ``missing_image``, ``unreadable_image``,
            ``duplicate_name``, ``no_label``, ``unknown_image``, ``link``, ``malformed_line``, ``other_count`` (than the
            published one), ``person_in_two_splits``, ``alike_labels``, ``unknown_label``; of
            photographs whose face is looked for also ``no_face``, ``several_faces``, ``face_too_small``,
            ``face_cut_off``, ``face_unclear``.
        detail: why, for people.
    """

    file: str
    code: str
    detail: str = ""


#: More lines of one file that cannot be used mean that it is another kind of file.
MAX_PROBLEMS = 100_000


class Problems(list[Problem]):
    """Lines of a label file that cannot be used, one by one; of a file that is nothing else, not all are kept."""

    def append(self, problem: Problem) -> None:
        """Add one.

        Raises:
            DatasetError: there are more than :data:`MAX_PROBLEMS`.
        """
        super().append(problem)
        if len(self) > MAX_PROBLEMS:
            raise DatasetError(
                f"{problem.file.partition(':')[0]} has more than {MAX_PROBLEMS:,} entries that cannot be used, such as "
                f"{problem.file} ({problem.detail:.200}). It is damaged, or of another kind."
            )


class StoredSize(NamedTuple):
    """How large a stored picture is.

    Attributes:
        width_px, height_px: as it is stored, before it is turned upright.
        num_bytes: of its file.
    """

    width_px: int
    height_px: int
    num_bytes: int


@checked_call
def hash_split(name: str) -> str:
    """The split of a file that nothing else assigns: crc32 of its name modulo 10; 0 is test, 1 is val, the rest train.

    A file keeps its split when others are added or removed.

    Example:
        >>> [hash_split(f"{i}.jpg") for i in (29, 9, 4)]
        ['test', 'train', 'val']
    """
    return {0: "test", 1: "val"}.get(zlib.crc32(name.encode(errors="surrogatepass")) % 10, "train")


@dataclass(frozen=True, repr=False, eq=False)
class FaceDataset(Shown):
    """Faces with labels.

    Attributes:
        name: what the dataset is, for reports.
        table: one row per face, indexed by a unique text id; columns ``file_name``, ``split`` (train, val or test) and
            the attributes. A missing label is None or NA, never a number.
        root: the folder that ``file_name`` is relative to; ``None`` where pictures are not files.
        attributes: the columns that are labels. ``None``: every column that is neither ``file_name``, ``split``,
            provenance nor a score.
        problems: what was left out, and why.
        license: how the pictures may be used, as far as it is known.
        descriptions: what a column means, where its name does not say all.
        alignment: how the faces were cut out of photographs (:func:`vlbias.data.align_dataset`); ``None`` where the
            pictures are as they are stored.

    Raises:
        DatasetError: no row, a missing column, an id twice, or a split of another name.
        UnknownNameError: an attribute that is no column.
    """

    name: str
    table: pd.DataFrame
    root: Path | None = None
    attributes: list[str] = None  # type: ignore[assignment]  # None until __post_init__
    problems: list[Problem] = field(default_factory=list)
    license: str | None = None
    descriptions: Mapping[str, str] = field(default_factory=dict)
    alignment: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.table, pd.DataFrame):
            raise DatasetError(f"`table` must be a pandas DataFrame; got {type(self.table).__name__}.")
        if isinstance(self.root, str):
            object.__setattr__(self, "root", Path(self.root))
        if pd.api.types.is_integer_dtype(self.table.index.dtype):  # ids are text everywhere
            object.__setattr__(self, "table", self.table.set_axis(self.table.index.map(str)))
        table = self.table
        for column in ("file_name", "split"):
            if column not in table.columns:
                raise DatasetError(f"the table of '{self.name}' lacks '{column}'; it needs file_name and split.")
        if table.columns.has_duplicates:
            twice = sorted(table.columns[table.columns.duplicated()].map(str))
            raise DatasetError(f"the table of '{self.name}' has columns twice: {', '.join(twice)}. Rename them.")
        if len(table) == 0:
            raise DatasetError(f"'{self.name}' has no face. Check its folder, or the selection that was made.")
        if table.index.has_duplicates:
            twice = sorted(set(table.index[table.index.duplicated()].map(str)))
            raise DatasetError(f"'{self.name}' has ids twice: {', '.join(twice[:5])}. Give each face one row.")
        wrong = sorted(set(map(str, table["split"].unique())) - set(SPLITS))
        if wrong:
            raise DatasetError(f"'{self.name}' has splits {wrong}; expected {', '.join(SPLITS)}.")
        if self.attributes is None:
            object.__setattr__(self, "attributes", label_columns(table))
        for column in self.attributes:
            if column not in table.columns:
                raise unknown("attribute", column, label_columns(table), where=self.name)

    def __len__(self) -> int:
        return len(self.table)

    def _glance(self) -> Glance:
        counts = self.table["split"].value_counts()
        splits = ", ".join(f"{counts[split]} {split}" for split in SPLITS if split in counts)
        line = f"'{self.name}', {plural(len(self), 'face')} ({splits}), {plural(len(self.problems), 'problem')}"
        rows = [self._column(name) for name in self.attributes]
        return Glance(line, ("column", "values", "missing"), rows)

    def _column(self, name: str) -> tuple[str, str, int]:
        """A label column at a glance: its range or its most frequent values, and how many faces have none."""
        values = self.table[name]
        counts = values.value_counts()
        if len(counts) > 12 and pd.api.types.is_numeric_dtype(values.dtype):
            some = "{} to {}, median {}".format(*map(_short, (values.min(), values.max(), values.median())))
        else:
            some = ", ".join(f"{value} {count:,}" for value, count in counts.head(4).items())
            some += f", ... ({len(counts):,} values)" if len(counts) > 4 else ""
        return name, some, int(values.isna().sum())

    @property
    def ids(self) -> list[str]:
        """The ids, in the order of the table."""
        return self.table.index.tolist()

    # -- pictures -----------------------------------------------------------------------------------------------------

    def path(self, item: str) -> Path | None:
        """The file of one face, ``None`` where the picture is drawn and not read."""
        self._require([item])
        return None if self.root is None else self.root / str(self.table.at[item, "file_name"])

    def placement(self, item: str) -> Similarity | None:
        """Where in its file's upright picture lies what :meth:`image` gives; ``None`` where that is all of it.

        Raises:
            UnknownNameError: no such id.
        """
        self._require([item])
        return None

    def image(self, item: str) -> Image.Image:
        """One face, upright RGB in its own size.

        Raises:
            UnknownNameError: no such id.
            ImageError: its file is missing or cannot be read.
        """
        path = self.path(item)
        if path is None:
            raise DatasetError(f"'{self.name}' has only labels; no folder of pictures was given with them.")
        return open_image(path)

    def expect(self, items: Sequence[str]) -> None:
        """Say which faces :meth:`image` will be asked for next; a dataset may ready them together.

        Raises:
            UnknownNameError: no such id.
        """
        self._require(items)

    def file(self, item: str) -> Encoded | None:
        """The file of one face, byte by byte; ``None`` where the picture is made and not stored.

        Raises:
            UnknownNameError: no such id.
            ImageError: it is missing or cannot be read.
        """
        path = self.path(item)
        return None if path is None else Encoded(read_picture(path), path.suffix.lower())

    def original(self, item: str) -> Original:
        """The picture as it is stored, with what is needed to write an edited copy in the same way; of a picture that
        is drawn, the picture.

        Raises:
            UnknownNameError: no such id.
            ImageError: its file is missing or cannot be read.
        """
        path = self.path(item)
        return Original.of_picture(self.image(item)) if path is None else Original.read(path)

    def stored_size(self, item: str) -> StoredSize | None:
        """How large :meth:`original` is, without reading it; ``None`` where that is not known.

        Raises:
            UnknownNameError: no such id.
        """
        path = self.path(item)
        try:
            return None if path is None else StoredSize(*picture_size(path), path.stat().st_size)
        except OSError:  # missing or damaged: it is told apart where the picture is needed
            return None

    def reason(self, item: str, error: Exception) -> str:
        """What is wrong with a picture, for people: its path is that below the root, for reports are passed on."""
        name = str(self.table.at[item, "file_name"])
        return str(error) if self.root is None else str(error).replace(printable(self.root / name), printable(name))

    @checked_call
    def tensor(self, items: Sequence[str], size: int) -> torch.Tensor:
        """Some faces, float32 (n, 3, size, size) in [-1, 1], in the order of ``items``.

        Args:
            items: ids; one may stand there more than once.
            size: edge in pixels; pictures are cropped to their central square and resized.

        Raises:
            UnknownNameError: no such id.
            ImageError: a file is missing or cannot be read.
            ConfigError: ``size`` out of range, or more pictures than fit into memory.
        """
        items = list(items)
        self._require(items)
        check_tensor(len(items), size)

        def one(item: str) -> torch.Tensor:
            return self._seen(item, lambda picture: to_tensor(picture, size))

        if len(items) < 2 * _NUM_THREADS:
            return torch.cat([one(item) for item in items]) if items else torch.empty(0, 3, size, size)
        with ThreadPoolExecutor(_NUM_THREADS) as pool:
            return torch.cat(list(pool.map(one, items)))

    def _seen(self, item: str, see: Callable[[Image.Image], Seen]) -> Seen:
        """What a function makes of one face; threads that come to large files see one after another."""
        path = self.path(item)
        with nullcontext() if path is None else in_turn(path):
            return see(self.image(item))

    @checked_call
    def check_images(self, *, min_size_px: int = 1, show_progress: bool = True) -> Self:
        """Decode every picture once and leave out those that cannot be used.

        Args:
            min_size_px: a picture whose shorter edge is below this is left out as well.
            show_progress: whether a line on stderr tells how far it is.

        Returns:
            The dataset without the unreadable pictures; they are added to ``problems`` (``unreadable_image``).

        Raises:
            DatasetError: no picture can be read.
        """
        found: list[Problem] = []
        good: list[str] = []

        def one(item: str) -> Problem | None:
            name = str(self.table.at[item, "file_name"])
            try:
                width, height = self._seen(item, lambda picture: picture.size)
            except ImageError as error:
                return Problem(name, "unreadable_image", self.reason(item, error))
            if min(width, height) < min_size_px:
                return Problem(name, "unreadable_image", f"{width}x{height} pixels; at least {min_size_px} are needed")
            return None

        ids = self.ids
        with (
            track(len(ids), "checking pictures", "images", show=show_progress) as progress,
            ThreadPoolExecutor(_NUM_THREADS) as pool,
        ):
            for item, problem in zip(ids, pool.map(one, ids), strict=True):
                if problem is None:
                    good.append(item)
                else:
                    found.append(problem)
                progress.update(1, unreadable=len(found))
        if not good:
            raise DatasetError(f"no picture of '{self.name}' can be read; the first: {found[0].detail}")
        return replace(self.select(good), problems=[*self.problems, *found]) if found else self

    # -- selections ---------------------------------------------------------------------------------------------------

    @checked_call
    def select(self, which: Selection) -> Self:
        """Some of the faces, as a dataset of the same kind.

        Args:
            which: ids in the wanted order, or a boolean mask (a Series is matched by its index).

        Raises:
            UnknownNameError: no such id.
            DatasetError: nothing selected, or an id twice.
            ConfigError: a mask of another length.
        """
        ids = self._resolve(which)
        return replace(self, table=self.table.loc[ids])

    @checked_call
    def sample(self, n: int, *, seed: int = 0) -> Self:
        """At most ``n`` of the faces, drawn; in the order of the table.

        Files are often named by what they show (UTKFace: by age), so the first ones are no sample. Whether a face is
        drawn depends on its id and the seed, not on the order of the table.

        Args:
            n: how many; of a smaller dataset all.
            seed: of the draw.

        Raises:
            ConfigError: ``n`` below 1.
        """
        if n < 1:
            raise ConfigError(f"`n` must be 1 or more faces; got {n}.")
        if n >= len(self):
            return self
        drawn = heapq.nsmallest(n, ((item_seed(seed, "sample", item), item) for item in self.ids))
        return self.select(self.table.index.isin([item for _, item in drawn]))

    @checked_call
    def split(self, name: str) -> Self:
        """The faces of one split.

        Raises:
            UnknownNameError: a split that no face is in.
        """
        present = set(self.table["split"].unique())
        if name not in present:
            raise unknown("split", name, present, where=self.name)
        return self.select(self.table["split"] == name)

    @checked_call
    def values(self, column: str) -> list[Any]:
        """The different labels of a column, sorted; missing ones are not among them.

        Raises:
            UnknownNameError: no such column.
            LabelError: the column holds lists.
        """
        return sorted(typed_labels(self.column(column)).dropna().unique().tolist())

    @checked_call
    def column(self, column: str) -> pd.Series:
        """One column of the table.

        Raises:
            UnknownNameError: no such column.
        """
        if column not in self.table.columns:
            raise unknown("attribute", column, self.attributes, where=self.name)
        return self.table[column]

    @checked_call
    def with_column(self, column: str, values: Sequence[object] | pd.Series, description: str = "") -> Self:
        """The dataset with one more label, say from a labeller.

        Args:
            column: its name; an attribute of that name is replaced.
            values: one for each row; a Series is matched by its index.
            description: what the labels are and who gave them.

        Raises:
            ConfigError: another number of values, or the name of a column that is no label.
        """
        if not isinstance(column, str) or not column or column in ("file_name", "split"):
            raise ConfigError(f"{column!r} cannot be the name of a label; choose another one for the column.")
        values = values if isinstance(values, pd.Series) else list(values)
        if len(values) != len(self):
            raise ConfigError(f"`values` must hold {len(self)} labels; got {len(values)}.")
        given = values if isinstance(values, pd.Series) else pd.Series(values, self.table.index, dtype=object)
        aligned = typed_labels(given.reindex(self.table.index))
        attributes = self.attributes if column in self.attributes else [*self.attributes, column]
        descriptions = dict(self.descriptions) | ({column: description} if description else {})
        table = self.table.assign(**{column: aligned})
        return replace(self, table=table, attributes=attributes, descriptions=descriptions)

    # -- inside -------------------------------------------------------------------------------------------------------

    def _require(self, items: Iterable[str]) -> None:
        for item in items:
            if not isinstance(item, str):
                raise ConfigError(f"ids of '{self.name}' are text; got {item!r:.60}.")
            if item not in self.table.index:
                # a list of thousands of ids helps nobody: show those that look alike
                near = difflib.get_close_matches(str(item), self.ids[:5000], n=5) or self.ids[:5]
                raise unknown("id", str(item), near, where=f"'{self.name}' ({len(self)} faces; the nearest are listed)")

    def _resolve(self, which: Selection) -> list[str]:
        if isinstance(which, pd.Series) and pd.api.types.is_bool_dtype(which.dtype):
            if not which.index.equals(self.table.index):
                if len(which) != len(self) or set(which.index) != set(self.table.index):
                    raise ConfigError(f"the mask is indexed by other ids than '{self.name}'; build it from its table.")
                which = which.reindex(self.table.index)
            # an unknown answer (NA) selects nothing
            return list(self.table.index[which.fillna(False).to_numpy(dtype=bool)])
        values = list(which)
        if values and all(isinstance(value, (bool, np.bool_)) for value in values):
            if len(values) != len(self):
                raise ConfigError(f"the mask must hold {len(self)} values; got {len(values)}.")
            return list(self.table.index[np.asarray(values, dtype=bool)])
        self._require(values)
        return values


def label_columns(table: pd.DataFrame) -> list[str]:
    """The columns of a table that are labels of the face: not place, provenance or score.

    Example:
        >>> label_columns(pd.DataFrame(columns=["file_name", "split", "age", "seed"]))
        ['age', 'seed']
    """
    names = [str(column) for column in table.columns]
    # "path" or "seed" may be anybody's label; only beside an "origin" of the pipeline's are they its own
    is_ours = "origin" in names and table["origin"].isin(ORIGINS).any()
    hidden = {"file_name", "split"} | (PROVENANCE if is_ours else frozenset())
    return [name for name in names if not (name in hidden or name.startswith("score_") or is_nameless(name))]


def is_nameless(column: str) -> bool:
    """Whether pandas made up the name of a column: a CSV file's row numbers, or a comma too many."""
    return re.fullmatch(r"Unnamed: \d+|", column) is not None


@dataclass(frozen=True, repr=False, eq=False)
class JoinedDataset(FaceDataset):
    """Several datasets as one; made by :func:`join`.

    Attributes:
        parts: the datasets, each with its own pictures.
    """

    parts: tuple[FaceDataset, ...] = ()

    def path(self, item: str) -> Path | None:
        """Of the picture, in the dataset it came from."""
        return self._home(item).path(item)

    def image(self, item: str) -> Image.Image:
        """One picture, of the dataset it came from."""
        return self._home(item).image(item)

    def file(self, item: str) -> Encoded | None:
        """Of the picture, in the dataset it came from."""
        return self._home(item).file(item)

    def original(self, item: str) -> Original:
        """How the picture is stored, in the dataset it came from."""
        return self._home(item).original(item)

    def stored_size(self, item: str) -> StoredSize | None:
        """Of the picture, in the dataset it came from."""
        return self._home(item).stored_size(item)

    def placement(self, item: str) -> Similarity | None:
        """Where the crop lies in its photograph, in the dataset it came from."""
        return self._home(item).placement(item)

    def reason(self, item: str, error: Exception) -> str:
        """What is wrong with a picture, in words of the dataset it came from."""
        return self._home(item).reason(item, error)

    @checked_call
    def tensor(self, items: Sequence[str], size: int) -> torch.Tensor:
        """Pictures of all datasets: float32 (n, 3, size, size) in [-1, 1]."""
        items = list(items)
        check_tensor(len(items), size)
        out = torch.empty(len(items), 3, size, size)
        homes = [self._home(item) for item in items]
        for part in self.parts:
            rows = [row for row, home in enumerate(homes) if home is part]
            if rows:
                out[rows] = part.tensor([items[row] for row in rows], size)
        return out

    def _home(self, item: str) -> FaceDataset:
        self._require([item])
        return next(part for part in self.parts if item in part.table.index)


@checked_call
def join(datasets: Iterable[FaceDataset], name: str = "") -> FaceDataset:
    """Put datasets together; a column that one of them lacks is missing there.

    Args:
        datasets: with ids that do not repeat.
        name: of the whole; empty for the names joined by "+".

    Raises:
        ConfigError: no dataset.
        DatasetError: an id in two of them.
    """
    datasets = list(datasets)
    if not datasets:
        raise ConfigError("`datasets` is empty; expected at least one.")
    attributes = list(dict.fromkeys(column for dataset in datasets for column in dataset.attributes))
    licenses = {dataset.license for dataset in datasets if dataset.license}
    descriptions: dict[str, str] = {}
    for dataset in datasets:
        descriptions |= dataset.descriptions
    alignments = {dataset.name: dict(dataset.alignment) for dataset in datasets if dataset.alignment is not None}
    return JoinedDataset(
        name=name or "+".join(dataset.name for dataset in datasets),
        table=_joined([dataset.table for dataset in datasets]),
        attributes=attributes,
        problems=[problem for dataset in datasets for problem in dataset.problems],
        license="; ".join(sorted(licenses)) or None,
        descriptions=descriptions,
        alignment=alignments or None,
        parts=tuple(datasets),
    )


def _joined(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """The rows of all tables; a column keeps whole numbers whole where a table lacks it, and mixed labels are text."""
    joined = pd.concat(tables)
    for column in joined.columns:
        dtypes = {table[column].dtype if column in table else None for table in tables}
        if len(dtypes) > 1:
            parts = [table[column] if column in table else pd.Series(None, table.index, object) for table in tables]
            with suppress(LabelError):  # lists are no labels and stay as they are
                joined[column] = typed_labels(pd.concat([part.astype(object) for part in parts])).array
    return joined


def _short(value: float) -> str:
    return f"{value:.0f}" if value % 1 == 0 else f"{value:.3g}"
