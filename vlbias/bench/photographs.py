"""Tasks of photographs, for those who have them: UTKFace and CelebA-HQ.

Nothing of the photographs is kept here. Which of UTKFace stand in which split is listed by digests of their names, so
that everybody has the same splits; CelebA-HQ comes with CelebA's own, in which nobody is in two.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from itertools import product
from typing import ClassVar

import pandas as pd

from vlbias.bench.tasks import TaskFaces, register_task
from vlbias.data import FaceDataset
from vlbias.data.celebahq import load_celebahq
from vlbias.data.utkface import load_utkface
from vlbias.errors import ConfigError, DatasetError
from vlbias.files import AnyPath
from vlbias.labels import in_order
from vlbias.settings import Settings, number

__all__ = ["LIST_FILE", "CelebAHQTask", "UTKFaceTask", "name_digest"]

#: Digests of the names of UTKFace's photographs by split, one a line: ``train 0123456789``. Of files with the same
#: bytes one is listed; no list says who is shown. ``benchmarks/utkface_splits.py`` made it.
LIST_FILE = "utkface_splits.txt"
#: First age in years that counts as adult: gender and skin of children are hard to see.
ADULT = 16
#: Photographs in each of the two cells that are many, and in each of those that are few.
LARGE, SMALL = 360, 40


def name_digest(name: str) -> str:
    """What :data:`LIST_FILE` calls a photograph of UTKFace: a hash of its name up to the first dot.

    Example:
        >>> name_digest("26_1_2_20170116184024662.jpg.chip.jpg")
        '83e5170c9f'
    """
    return hashlib.sha256(name.partition(".")[0].strip().encode()).hexdigest()[:10]


@cache
def _listed() -> dict[str, str]:
    lines = files("vlbias.bench").joinpath(LIST_FILE).read_text(encoding="ascii").split("\n")
    pairs = (line.split() for line in lines if line and not line.startswith("#"))
    return {digest: split for split, digest in pairs}


@dataclass(frozen=True)
class _PhotographTask(Settings):
    """A task whose faces are drawn from those of a dataset.

    Attributes:
        target, protected: two-valued columns.
        planted: ties them: 360, 40, 40 and 360 training faces in the four cells, and a quarter of that for validation.
            Otherwise cells are as large as they come.
        num_training: faces of a set that is not planted.
        editor: which edits them.
        seed: draws the sets.
    """

    kind: ClassVar[str] = ""

    target: str
    protected: str
    planted: bool = True
    num_training: int = number(2000, 40, 10_000_000)
    editor: str = "utkface-64"
    seed: int = number(0, 0)

    @property
    def name(self) -> str:
        """Such as ``utkface-gender-skin-planted``."""
        return f"{self.kind}-{self.target}-{self.protected}-{'planted' if self.planted else 'natural'}".lower()

    @property
    def pictures(self) -> str:
        """The kind of the dataset whose folder must be given."""
        return self.kind

    def faces(self, root: AnyPath | None = None) -> TaskFaces:
        """Draw the sets.

        Raises:
            ConfigError: no folder is given.
            DatasetError: it holds too few of the listed photographs.
        """
        if root is None:
            raise ConfigError(f"{self.name} needs the folder of the photographs (--{self.kind} FOLDER).")
        whole = self._known(root)
        test = self._even(whole.select(whole.table["split"] == "test"))
        validation = self._drawn(whole.select(whole.table["split"] == "val"), 4)
        pool = whole.select(whole.table["split"] == "train")
        training = self._drawn(pool, 1)
        left = pool.table.index.difference(training.table.index)
        return TaskFaces(training, validation, test, pool.select(list(left)) if self.planted else None)

    def _known(self, root: AnyPath) -> FaceDataset:
        """The listed photographs with both labels."""
        raise NotImplementedError

    def _labelled(self, faces: FaceDataset, also: pd.Series) -> FaceDataset:
        table = faces.table
        return faces.select(also & table[self.target].notna() & table[self.protected].notna())

    def _cells(self, faces: FaceDataset) -> Mapping[tuple[object, object], list[str]]:
        """Ids of each cell in an order that the seed draws."""
        table = faces.table
        found = {
            (target, group): part.sample(len(part), random_state=self.seed).index.tolist()
            for (target, group), part in table.groupby([self.target, self.protected])
        }
        classes, groups = (in_order(table[column].unique()) for column in (self.target, self.protected))
        if (len(classes), len(groups), len(found)) != (2, 2, 4):
            raise DatasetError(
                f"{self.name} needs two values of {self.target} and two of {self.protected} in every split; a split "
                f"has {len(classes)} and {len(groups)}, in {len(found)} cells."
            )
        return {cell: found[cell] for cell in product(classes, groups)}

    def _even(self, faces: FaceDataset) -> FaceDataset:
        """As many in each cell, as the smallest one holds."""
        cells = self._cells(faces)
        share = min(map(len, cells.values()))
        return faces.select([item for ids in cells.values() for item in ids[:share]])

    def _drawn(self, faces: FaceDataset, divisor: int) -> FaceDataset:
        if not self.planted:
            wanted = min(self.num_training // divisor, len(faces))
            return faces.select(faces.table.sample(wanted, random_state=self.seed).index.tolist())
        chosen: list[str] = []
        for place, ((target, group), ids) in enumerate(self._cells(faces).items()):
            wanted = (LARGE if place in (1, 2) else SMALL) // divisor
            if len(ids) < wanted:
                raise DatasetError(
                    f"{self.name} needs {wanted} faces with {self.target} {target} and {self.protected} {group}; "
                    f"there are {len(ids)}. Give the whole dataset."
                )
            chosen += ids[:wanted]
        return faces.select(chosen)


@dataclass(frozen=True)
class UTKFaceTask(_PhotographTask):
    """Adults of UTKFace. Test faces are none that the shipped editor was trained on."""

    kind: ClassVar[str] = "utkface"

    def _known(self, root: AnyPath) -> FaceDataset:
        faces = load_utkface(root)
        splits = faces.table.index.map(name_digest).map(_listed())
        listed = pd.Series(splits.notna(), faces.table.index)
        if not listed.any():
            raise DatasetError(f"{root} has none of the photographs that {self.name} lists. Give UTKFace as it is.")
        faces = replace(faces, table=faces.table.assign(split=splits.fillna("train").tolist()))
        return self._labelled(faces, listed & (faces.table["age"] >= ADULT))


@dataclass(frozen=True)
class CelebAHQTask(_PhotographTask):
    """Faces of CelebA-HQ in CelebA's own splits; none of the shipped editors was trained on them."""

    kind: ClassVar[str] = "celebahq"

    def _known(self, root: AnyPath) -> FaceDataset:
        faces = load_celebahq(root)
        return self._labelled(faces, pd.Series(True, faces.table.index))


for _planted, (_target, _protected) in product(
    (True, False), (("gender", "skin"), ("gender", "age_group"), ("age_group", "skin"), ("age_group", "gender"))
):
    register_task(UTKFaceTask(_target, _protected, _planted))
for _planted, (_target, _protected) in product(
    (True, False), (("Smiling", "Young"), ("Smiling", "Male"), ("Eyeglasses", "Young"), ("Big_Nose", "Male"))
):
    register_task(CelebAHQTask(_target, _protected, _planted))
