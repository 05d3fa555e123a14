"""What the third tab does, without a page: counts of a dataset, faces of a cell, what an editor would do to them."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch

from vlbias.app.places import allowed_folder
from vlbias.editor import Editor
from vlbias.errors import CheckpointError, ConfigError, unknown
from vlbias.labels import group_texts, label_texts
from vlbias.pages.folder import evenly_spaced
from vlbias.paths import drift_matrix

if TYPE_CHECKING:
    import pandas as pd
    from PIL import Image

    from vlbias.data import FaceDataset

__all__ = ["Browser", "Drift", "open_faces"]

#: A column of numbers with more different values than this is shown in as many ranges.
MAX_VALUES = 12
#: Drawn faces that a page may ask for.
MAX_DRAWN = 2000
#: Faces that drift is measured on, evenly spaced.
DRIFT_FACES = 200


def open_faces(typed: str, roots: Sequence[Path]) -> FaceDataset:
    """The dataset that somebody typed: ``synthfaces[:N]``, or a folder below one of the roots.

    Raises:
        DatasetError: a folder that this page may not open, or one that holds no dataset.
        ConfigError: more drawn faces than a page shows.
    """
    from vlbias.data import open_dataset

    typed = typed.strip()
    if not re.fullmatch(r"synthfaces(:\d+)?", typed):
        return open_dataset(allowed_folder(typed, roots))
    number = int(typed.partition(":")[2] or 500)
    if number > MAX_DRAWN:
        raise ConfigError(f"a page shows at most synthfaces:{MAX_DRAWN}; got {typed}.")
    return open_dataset(f"synthfaces:{number}")


class Drift(NamedTuple):
    """What the paths of an editor move, see :class:`vlbias.paths.PathReport`.

    Attributes:
        names: of the readings.
        rows: for each walk its name, success, identity, number of faces, and how far it moves each reading.
    """

    names: list[str]
    rows: list[tuple[str, float, float, int, list[float]]]


@dataclass(frozen=True)
class Browser:
    """A dataset that is looked at.

    Attributes:
        faces: the dataset.
    """

    faces: FaceDataset

    @cached_property
    def columns(self) -> list[str]:
        """What can be counted by: labels, the split, and where a picture comes from."""
        table = self.faces.table
        known = [name for name in (*self.faces.attributes, "split", "origin") if name in table.columns]
        # what differs for every face, and is no number, is its name
        return [name for name in dict.fromkeys(known) if 1 <= _in_ranges(table[name]).nunique() < len(table)]

    @cached_property
    def first_columns(self) -> list[str]:
        """What is counted by at first: two columns, of few values where there are such."""
        few = [name for name in self.columns if self.faces.table[name].nunique() <= MAX_VALUES]
        return (few or self.columns)[:2]

    def cells(self, columns: Sequence[str]) -> pd.Series:
        """The cell of each face by some columns, as text; missing labels read "unknown".

        Raises:
            ConfigError: no column.
            UnknownNameError: a column that is none of :attr:`columns`.
        """
        if not columns:
            raise ConfigError("choose at least one column to count by.")
        for column in columns:
            if column not in self.columns:
                raise unknown("column", column, self.columns, where=self.faces.name)
        table = self.faces.table[list(columns)].apply(_in_ranges)
        return group_texts(table.fillna("unknown"), list(columns))

    def counts(self, columns: Sequence[str]) -> list[tuple[str, int]]:
        """Cells in order, with the number of faces in each; see :meth:`cells`."""
        sizes = self.cells(columns).value_counts()
        return [(name, int(sizes[name])) for name in sorted(sizes.index, key=_counted)]

    def pictures(self, columns: Sequence[str], cell: str, number: int = 24) -> list[tuple[str, Image.Image]]:
        """Some faces of a cell, evenly spaced in the order of the table: id and picture.

        Raises:
            UnknownNameError: no face is in a cell of that name.
            ImageError: a picture cannot be read.
        """
        cells = self.cells(columns)
        ids = [item for item, name in zip(self.faces.ids, cells, strict=True) if name == cell]
        if not ids:
            raise unknown("cell", cell, set(cells), where=self.faces.name)
        return [(ids[place], self.faces.image(ids[place])) for place in evenly_spaced(len(ids), number)]

    def tensor(self, number: int, size: int) -> torch.Tensor:
        """Evenly spaced faces, (n, 3, size, size) in [-1, 1].

        Raises:
            ImageError: a picture cannot be read.
        """
        ids = self.faces.ids
        return self.faces.tensor([ids[place] for place in evenly_spaced(len(ids), number)], size)

    def drift(self, editor: Editor) -> Drift:
        """What each path of an editor moves besides its own attribute, read by its probes on these faces.

        Raises:
            CheckpointError: the editor has no paths or no probes.
        """
        renderer = editor.renderer
        if renderer.paths is None or renderer.probes is None:
            raise CheckpointError(f"'{editor.name}' has no paths or no probes, so no drift can be read.")
        x_0 = self.tensor(DRIFT_FACES, editor.image_size).to(renderer.device)
        with torch.no_grad():
            report = drift_matrix(renderer.paths, renderer.probes, renderer.encode(x_0))
        summaries = report.summary[["success", "identity", "faces"]].itertuples()
        rows = [(*summary, report.moved.loc[summary[0]].tolist()) for summary in summaries]
        return Drift(list(report.moved.columns), rows)


def _counted(text: str) -> list[tuple[bool, float, str]]:
    """Sorts numbers inside of texts by their size."""
    parts = re.findall(r"-?\d+(?:\.\d+)?|\D+", text)
    return [(False, float(part), "") if part[-1].isdigit() else (True, 0.0, part) for part in parts]


def _in_ranges(values: pd.Series) -> pd.Series:
    """A column as text; many different numbers as ranges of equal width, between round numbers."""
    import pandas as pd

    if not pd.api.types.is_numeric_dtype(values.dtype):
        return label_texts(values)
    numbers = values.astype("float64").where(lambda given: given.abs() < 1e15)  # beyond, they are names
    if numbers.nunique() <= MAX_VALUES:
        return label_texts(values)
    step = _round_step((numbers.max() - numbers.min()) / (MAX_VALUES // 2))
    is_whole = bool((numbers.dropna() % 1 == 0).all())

    def name(place: float) -> str | None:
        if place != place:
            return None
        low, high = f"{place * step:.10g}", f"{(place + 1) * step - is_whole:.10g}"
        return f"{low} to {high}" if is_whole else f"{low} to under {high}"

    return pd.Series([name(place) for place in numbers // step], index=values.index, dtype=object)


def _round_step(least: float) -> float:
    """The smallest of 1, 2, 5, 10, 20, ... (and .5, .2, .1, ...) that is no smaller."""
    decade = 10.0 ** math.floor(math.log10(least))
    return next(step for step in (decade, 2 * decade, 5 * decade, 10 * decade) if step >= least)
