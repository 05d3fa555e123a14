"""The embedded world as a dataset: faces that are drawn when asked for, with true labels and true counterfactuals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Self, Unpack

import numpy as np
import pandas as pd
import torch
from PIL import Image

from vlbias.arguments import checked_call
from vlbias.data.table import FaceDataset, Selection, check_tensor, hash_split
from vlbias.errors import ConfigError
from vlbias.images import to_pil, to_tensor
from vlbias.settings import checked_number
from vlbias.world import Faces, render, sample
from vlbias.world.joint import JointOptions
from vlbias.world.sampling import MAX_FACES

__all__ = ["SynthFaces", "drawn_dataset", "load_synthfaces"]

DEFAULT_N = 1000
# Faces that are drawn at once, and how many pixels of them are kept: what is edited is opened, written and compared.
DRAWN_TOGETHER, KEPT_PIXELS = 16, 1024 * 64**2


@dataclass
class _Kept:
    """Faces that were drawn lately, by their ids, and the row that was asked for last."""

    pictures: dict[str, Image.Image] = field(default_factory=dict)
    last: int | None = None


@dataclass(frozen=True, repr=False, eq=False)
class SynthFaces(FaceDataset):
    """Drawn faces.

    Attributes:
        faces: the truth about each face, row by row as in the table.
        image_size: edge in pixels of the pictures.
    """

    faces: Faces = None  # type: ignore[assignment]  # always given; a dataclass field after defaults needs one
    image_size: int = 64

    def image(self, item: str) -> Image.Image:
        """One face, drawn; who asks for one after the other gets faces that were drawn together, two times faster."""
        kept, row = self._kept, int(self._rows([item])[0])
        if item not in kept.pictures:
            self.expect(self.table.index[row : row + (DRAWN_TOGETHER if row - 1 == kept.last else 1)].tolist())
        kept.last = row
        picture = kept.pictures[item] = kept.pictures.pop(item)  # what was asked for last leaves last
        return picture.copy()

    def expect(self, items: Sequence[str]) -> None:
        """Draw faces together, as many as are kept, that are not drawn yet."""
        self._require(items)
        pictures, most = self._kept.pictures, max(1, KEPT_PIXELS // self.image_size**2)
        wanted = list(dict.fromkeys(items))[:most]
        pictures.update({item: pictures.pop(item) for item in wanted if item in pictures})
        missing = [item for item in wanted if item not in pictures]
        if missing:
            pictures.update(zip(missing, to_pil(self._draw(missing)), strict=True))
        for oldest in list(pictures)[:-most]:
            del pictures[oldest]

    @cached_property
    def _kept(self) -> _Kept:
        return _Kept()

    def __getstate__(self) -> dict[str, object]:
        return {name: value for name, value in vars(self).items() if name != "_kept"}

    @checked_call
    def tensor(self, items: Sequence[str], size: int) -> torch.Tensor:
        """Faces, drawn at ``size`` px: float32 (n, 3, size, size) in [-1, 1]."""
        items = list(items)
        check_tensor(len(items), size)
        if not items:
            return torch.empty(0, 3, size, size)
        pictures = self._kept.pictures
        if all(item in pictures for item in items):
            return to_tensor([pictures[item] for item in items], size)
        drawn = self._draw(items)
        return drawn if size == self.image_size else to_tensor(to_pil(drawn), size)

    def check_images(self, *, min_size_px: int = 1, show_progress: bool = True) -> Self:
        """The dataset itself: a drawn picture is never damaged."""
        return self

    def select(self, which: Selection) -> Self:
        """Some of the faces, by ids or a mask."""
        ids = self._resolve(which)
        chosen = replace(self, table=self.table.loc[ids], faces=self.faces[self._rows(ids)])
        chosen._kept.pictures = self._kept.pictures  # the same faces by the same ids
        return chosen

    def counterfactual(self, items: Sequence[str] | None = None, /, **attributes: object) -> Self:
        """The same faces with some attributes changed and all else equal: what a perfect edit would give.

        Args:
            items: ids; ``None`` for all faces.
            attributes: new values by name, as for ``Faces.replace``: a label, a number, or one for each face.

        Returns:
            Faces with ids ``"<donor>~<attribute>=<value>"``, in their donors' splits, with columns ``origin``
            ("counterfactual") and ``source_id`` (the donor).

        Raises:
            UnknownNameError: no such id or attribute.
            ConfigError: no attribute, or a value out of range.
        """
        if not attributes:
            raise ConfigError("`counterfactual` needs at least one attribute to change, such as smile=1.")
        donors = self if items is None else self.select(items)
        changed = donors.faces.replace(**attributes)
        names = [
            donor + "~" + ",".join(f"{name}={_at(value, row)}" for name, value in sorted(attributes.items()))
            for row, donor in enumerate(donors.ids)
        ]
        table = _table(changed, names, donors.table["split"].tolist())
        table = table.assign(origin="counterfactual", source_id=donors.ids)
        return replace(donors, table=table, faces=changed)

    def _rows(self, items: Sequence[str]) -> np.ndarray:
        self._require(items)
        return self.table.index.get_indexer(pd.Index(items))

    def _draw(self, items: Sequence[str]) -> torch.Tensor:
        return render(self.faces[self._rows(items)], self.image_size)


def _at(value: object, row: int) -> str:
    if isinstance(value, (list, tuple, np.ndarray, torch.Tensor, pd.Series)):
        value = list(value)[row]
    if isinstance(value, torch.Tensor):
        value = value.item()
    return f"{value:g}" if isinstance(value, float) else str(value)


def _table(faces: Faces, ids: list[str], splits: list[str]) -> pd.DataFrame:
    truth = faces.table().reset_index(drop=True)
    truth.index = pd.Index(ids, name="id")
    truth.insert(0, "file_name", [f"{item}.png" for item in ids])
    truth.insert(1, "split", splits)
    return truth


@checked_call
def load_synthfaces(
    root: Any = None,
    *,
    n: int | None = None,
    seed: int = 0,
    start: int = 0,
    setting: str = "varied",
    image_size: int = 64,
    **labels: Unpack[JointOptions],
) -> SynthFaces:
    """Faces of the embedded world.

    Args:
        root: nothing; the pictures are drawn.
        n: how many, 1 to 1,000,000; ``None`` for the total of the counts in ``cells``, else 1000.
        seed: of the world; face i depends on ``(seed, start + i)`` alone.
        start: number of the first face: sets with other starts have other faces.
        setting: ``"varied"`` or ``"posed"``, as for ``vlbias.world.sample``.
        image_size: edge in pixels, 16..1024.
        **labels: ``bias``, ``cells``, ``rates`` and ``expressions``: how labels are distributed, as for
            ``vlbias.world.sample``.

    Raises:
        ConfigError: a value out of range.
    """
    if root is not None:
        raise ConfigError(f"synthfaces are drawn, they have no folder; got root={str(root)!r}. Leave it out.")
    checked_number("seed", seed, low=0)
    if n is not None and not 1 <= n <= MAX_FACES:
        raise ConfigError(f"`n` must be in 1..{MAX_FACES:,}, the number of faces to draw; got {n:,}.")
    if n is None and not labels.get("cells"):
        n = DEFAULT_N
    faces = sample(n, setting=setting, seed=seed, start=start, **labels)
    ids = [f"synth-{seed}-{start + row:06d}" for row in range(len(faces))]
    return drawn_dataset(faces, ids, image_size=image_size)


@checked_call
def drawn_dataset(
    faces: Faces, ids: Sequence[str] | None = None, *, image_size: int = 64, name: str = "synthfaces"
) -> SynthFaces:
    """Any drawn faces as a dataset, say those of ``vlbias.world.identities``.

    Args:
        faces: the truth about each.
        ids: one each, unique; ``None`` numbers them.
        image_size: edge in pixels, 16..1024.
        name: of the dataset.

    Raises:
        ConfigError: ``image_size`` out of range, or another number of ids.
        DatasetError: no face, or an id twice.
    """
    if not 16 <= image_size <= 1024:
        raise ConfigError(f"`image_size` must lie in 16..1024 pixels; got {image_size}.")
    names = [f"face-{row:06d}" for row in range(len(faces))] if ids is None else list(ids)
    if len(names) != len(faces):
        raise ConfigError(f"`ids` must hold {len(faces)} ids; got {len(names)}.")
    table = _table(faces, names, [hash_split(item) for item in names])
    return SynthFaces(name, table, license="MIT (drawn by vlbias)", faces=faces, image_size=image_size)
