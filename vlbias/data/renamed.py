"""A dataset under other ids, for results that must not say what its files are called."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import torch
from PIL import Image

from vlbias.alignment import Similarity
from vlbias.data.table import FaceDataset, Problem, StoredSize, check_tensor
from vlbias.originals import Encoded, Original
from vlbias.shown import printable

__all__ = ["PseudonymousFaces"]


@dataclass(frozen=True, repr=False, eq=False)
class PseudonymousFaces(FaceDataset):
    """A dataset under other ids; its pictures are those of the dataset it was made of.

    Attributes:
        real: that dataset.
        ids_there: id here => id there.
    """

    real: FaceDataset = None  # type: ignore[assignment]  # given by `of`
    ids_there: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, faces: FaceDataset, name: Callable[[str], str]) -> PseudonymousFaces:
        """A dataset under other ids, in an order that says nothing of the true ones.

        Args:
            faces: the dataset.
            name: id there => id here, also for the names of files that were left out.
        """
        here = {name(str(item)): str(item) for item in faces.ids}
        table = faces.table.set_axis(pd.Index(list(here), name=faces.table.index.name)).assign(file_name=list(here))
        return cls(
            faces.name,
            table.sort_index(),
            root=faces.root,
            attributes=faces.attributes,
            # what is wrong is told in words that may hold names
            problems=[Problem(name(problem.file), problem.code) for problem in faces.problems],
            license=faces.license,
            descriptions=faces.descriptions,
            alignment=faces.alignment,
            real=faces,
            ids_there=here,
        )

    def path(self, item: str) -> Path | None:
        """Of the picture, under its true name."""
        return self.real.path(self._there(item))

    def image(self, item: str) -> Image.Image:
        """One face, upright RGB in its own size."""
        return self.real.image(self._there(item))

    def file(self, item: str) -> Encoded | None:
        """Its file, byte by byte."""
        return self.real.file(self._there(item))

    def original(self, item: str) -> Original:
        """The picture as it is stored."""
        return self.real.original(self._there(item))

    def stored_size(self, item: str) -> StoredSize | None:
        """How large it is."""
        return self.real.stored_size(self._there(item))

    def placement(self, item: str) -> Similarity | None:
        """Where its face lies."""
        return self.real.placement(self._there(item))

    def tensor(self, items: Sequence[str], size: int) -> torch.Tensor:
        """Some faces, float32 (n, 3, size, size) in [-1, 1]."""
        check_tensor(len(items), size)
        return self.real.tensor([self._there(item) for item in items], size)

    def reason(self, item: str, error: Exception) -> str:
        """What is wrong with a picture, under its name here."""
        there = self._there(item)
        text = self.real.reason(there, error)
        for name in (str(self.real.table.at[there, "file_name"]), there):
            text = text.replace(printable(name), item)
        return text

    def _there(self, item: str) -> str:
        self._require([item])
        return self.ids_there[item]
