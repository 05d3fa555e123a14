"""What arms are compared on: faces to learn from, faces to choose by, and test faces that wait until the end."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
import torch

from vlbias.audit.composition import labels_of, people_of
from vlbias.classify import FitSettings
from vlbias.data import FaceDataset
from vlbias.data.origins import are_copies, donors_of
from vlbias.errors import ConfigError, DatasetError, LabelError
from vlbias.images import load_pixels
from vlbias.labels import group_texts, in_order
from vlbias.settings import Settings, number

if TYPE_CHECKING:
    from vlbias.editor import Editor

__all__ = ["ADDED", "ArmSettings", "ArmTask", "LabelledFaces", "cell_counts"]

#: Origins of pictures that a set adds to the originals.
ADDED = ("edited", "sampled", "counterfactual")


def _fit_settings() -> FitSettings:
    return FitSettings()


@dataclass(frozen=True)
class ArmSettings(Settings):
    """How arms are tuned and fitted, the same for all of them.

    Attributes:
        fit: of the classifiers; its seed is the first of those that everything is chosen with.
        protocol: ``"scratch"``, or ``"fine-tune"`` (the published one): plain training first, from where each arm goes
            on for half as many steps at a tenth of the learning rate.
        tune: whether anything is chosen on validation faces; ``False`` takes the settings as they are and the first
            value of each knob.
        rate_factors: learning rates that plain training tries, as multiples of that of ``fit``; every other arm tries
            such multiples of the rate that plain training chose. Where the best is the highest or the lowest, the next
            one beyond it is tried as well, see ``fitting.FURTHER_RATES``.
        decay_factors: weight decays that plain training then tries, likewise; the others take what it chose.
        choosing_seeds: fits of each of the two best rates, decays or values of a knob, by whose mean one of them is
            chosen; the others have one fit. 1 takes the best of single fits.
        validation_share: of each cell of the training faces, held out where no validation set is given.
        person: column that says who is shown: people are held out as a whole, and resampled and permuted as a whole.
            ``None`` takes "identity" or "person" where there is one.
        weight: column that says how much each test face counts in metrics, as survey weights do; ``None`` for all
            alike.

    Raises:
        ConfigError: a value out of range.
    """

    fit: FitSettings = field(default_factory=_fit_settings)
    protocol: Literal["scratch", "fine-tune"] = "scratch"
    tune: bool = True
    rate_factors: tuple[float, ...] = number((1.0, 0.5, 2.0), above=0)
    decay_factors: tuple[float, ...] = number((1.0, 0.1, 4.0), 0)
    choosing_seeds: int = number(3, 1, 100)
    validation_share: float = number(0.2, 0.01, 0.5)
    person: str | None = None
    weight: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.rate_factors or not self.decay_factors:
            raise ConfigError("`rate_factors` and `decay_factors` must hold at least one number, such as 1.")

    def of_result(self) -> dict[str, Any]:
        """What results depend on, as plain values that name them; see ``FitSettings.of_result``."""
        values = self.to_dict() | {"fit": self.fit.of_result() | {"device": None}}
        del values["weight"]  # it decides how predictions count, not which they are
        return values


@dataclass(frozen=True, eq=False)
class LabelledFaces:
    """Faces with class and group.

    Attributes:
        images: uint8 (n, 3, s, s).
        y: class codes (n,).
        g: group codes (n,).
        ids: in their dataset (n,).
    """

    images: torch.Tensor
    y: np.ndarray
    g: np.ndarray
    ids: np.ndarray

    def __len__(self) -> int:
        return len(self.y)

    def take(self, rows: Sequence[int] | np.ndarray) -> LabelledFaces:
        """Some of the faces; a row may come more than once."""
        rows = np.asarray(rows, dtype=np.int64)
        return LabelledFaces(self.images[torch.from_numpy(rows)], self.y[rows], self.g[rows], self.ids[rows])

    def joined(self, *others: LabelledFaces) -> LabelledFaces:
        """These faces and others after them."""
        every = [self, *others]
        arrays = (np.concatenate([getattr(one, name) for one in every]) for name in ("y", "g", "ids"))
        return LabelledFaces(torch.cat([one.images for one in every]), *arrays)

    @cached_property
    def digest(self) -> str:
        """Of pictures and labels."""
        digest = hashlib.sha256(repr(tuple(self.images.shape)).encode())
        digest.update(self.images.contiguous().numpy().tobytes())
        digest.update(np.stack([self.y, self.g]).astype(np.int64).tobytes())
        return digest.hexdigest()


def cell_counts(y: np.ndarray, g: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Codes (n,) of class and group => counts (classes, groups)."""
    return np.bincount(y * shape[1] + g, minlength=shape[0] * shape[1]).reshape(shape)


@dataclass(frozen=True, eq=False)
class ArmTask:
    """One problem on which arms are compared. Pictures are read when they are first needed, and then kept.

    Attributes:
        train: faces to learn from, all of them, whatever their split.
        test: faces to test on; no arm sees them.
        target: column to predict.
        protected: column, or several whose product makes the groups.
        validation: faces to choose by; ``None`` holds a share of the training faces out.
        sets: further datasets by name, for the arms that need them: ``balanced`` (edits of the training faces),
            ``prior`` (edits of faces from the prior), ``amplified`` and ``more`` (real faces). Of the first three what
            editors made is used; of ``more`` all.
        editor: for the arms that make pictures themselves.
        settings: how arms are tuned and fitted.

    Raises:
        DatasetError, LabelError: no face with both labels, or a class that the test faces lack.
    """

    train: FaceDataset
    test: FaceDataset
    target: str
    protected: Sequence[str]
    validation: FaceDataset | None = None
    sets: Mapping[str, FaceDataset] = field(default_factory=dict)
    editor: Editor | None = None
    settings: ArmSettings = field(default_factory=ArmSettings)

    def __post_init__(self) -> None:
        columns = [self.protected] if isinstance(self.protected, str) else list(self.protected)
        object.__setattr__(self, "protected", columns)
        strange = in_order(set(labels_of(self.train, self.target, columns)[0].dropna()) - set(self.classes))
        if strange:
            raise LabelError(
                f"'{self.train.name}' has {self.target} '{strange[0]}', which the test set lacks: {self.classes}."
            )

    # -- labels -------------------------------------------------------------------------------------------------------

    @cached_property
    def classes(self) -> list[str]:
        """Classes as text, in the order of codes."""
        return in_order(set(self._labels(self.test)["y"]))

    @cached_property
    def groups(self) -> list[str]:
        """Groups as text, in the order of codes: those of training and test faces."""
        return in_order(set(self._labels(self.test)["g"]) | set(self._labels(self.train)["g"]))

    @property
    def shape(self) -> tuple[int, int]:
        """How many classes and groups there are."""
        return len(self.classes), len(self.groups)

    def _labels(self, dataset: FaceDataset) -> pd.DataFrame:
        """Class and group of each face that has both, as text."""
        y, g = labels_of(dataset, self.target, self.protected)
        labels = pd.DataFrame({"y": y, "g": g}).dropna()
        if labels.empty:
            raise DatasetError(f"no face of '{dataset.name}' has both '{self.target}' and {', '.join(self.protected)}.")
        return labels

    def faces_of(self, dataset: FaceDataset) -> LabelledFaces:
        """The faces of a dataset that have a known class and group, at the size of the classifiers."""
        labels = self._labels(dataset)
        y = pd.Index(self.classes).get_indexer(pd.Index(labels["y"]))
        g = pd.Index(self.groups).get_indexer(pd.Index(labels["g"]))
        known = (y >= 0) & (g >= 0)
        ids = labels.index.to_numpy(dtype=object)[known]
        return LabelledFaces(load_pixels(dataset, list(ids), self.settings.fit.image_size), y[known], g[known], ids)

    def values_of(self, group: int) -> dict[str, Any]:
        """The values of the protected columns that make a group."""
        for dataset in (self.test, self.train):
            texts = group_texts(dataset.table, self.protected)
            if (texts == self.groups[group]).any():
                row = dataset.table.loc[(texts == self.groups[group]).to_numpy()].iloc[0]
                return {column: row[column] for column in self.protected}
        raise LabelError(f"no face is in the group '{self.groups[group]}'.")

    def counts(self, faces: LabelledFaces) -> np.ndarray:
        """Faces in each cell (classes, groups)."""
        return cell_counts(faces.y, faces.g, self.shape)

    # -- who is learned from, chosen by and tested on -----------------------------------------------------------------

    @cached_property
    def held_out(self) -> frozenset[str]:
        """Ids of the training faces that are validation; none where a validation set is given.

        Copies of such faces are among them: they are learned from as little as these, and nothing is chosen by them.
        """
        if self.validation is not None:
            return frozenset()
        copies = are_copies(self.train.table)
        people = people_of(self.train, self.settings.person)
        if copies.any():
            own = donors_of(self.train.table[copies], self.train.table)
            people[copies] = own.map(lambda item: people.get(item, item))
        labels = self._labels(self.train)
        originals = labels[~copies[labels.index]]
        rng = np.random.default_rng([self.settings.fit.seed, 1])
        chosen: set[str] = set()
        for _, part in originals.groupby(["y", "g"], sort=True):
            names = np.unique(people[part.index].to_numpy(dtype=str))
            count = round(self.settings.validation_share * len(names))
            chosen |= set(rng.permutation(names)[: max(count, int(len(names) > 1))])
        return frozenset(labels.index[people[labels.index].isin(chosen)])

    @cached_property
    def faces(self) -> LabelledFaces:
        """The faces to learn from, without those held out."""
        kept = [item for item in self.train.ids if item not in self.held_out]
        faces = self.faces_of(self.train.select(kept))
        if len(np.unique(faces.y)) < 2:
            raise LabelError(f"the training faces have only one class of {self.target}; two are needed.")
        return faces

    @cached_property
    def validation_faces(self) -> LabelledFaces:
        """The faces to choose by."""
        if self.validation is not None:
            return self.faces_of(self.validation)
        copies = are_copies(self.train.table)
        held_out = [item for item in self.train.ids if item in self.held_out and not copies[item]]
        return self.faces_of(self.train.select(held_out))

    @cached_property
    def test_faces(self) -> LabelledFaces:
        """The faces to test on; read them once everything is chosen."""
        return self.faces_of(self.test)

    # -- what editors made for arms: once, however many fits learn from it ---------------------------------------------

    @cached_property
    def rebuilt(self) -> dict[str, torch.Tensor]:
        """Training faces as the editor rebuilds them, uint8 (3, s, s) by id; filled by the arms that want them."""
        return {}

    @cached_property
    def pushed(self) -> dict[int, LabelledFaces]:
        """Edits in random directions, by the seed of the directions; likewise."""
        return {}

    # -- what is added ------------------------------------------------------------------------------------------------

    def need_set(self, name: str) -> FaceDataset:
        """A further dataset.

        Raises:
            ConfigError: it was not given.
        """
        if name not in self.sets:
            raise ConfigError(f"no set '{name}' was given; pass `{name}=`.")
        return self.sets[name]

    def need_editor(self) -> Editor:
        """The editor.

        Raises:
            ConfigError: none was given.
        """
        if self.editor is None:
            raise ConfigError("no editor was given; pass `editor=`.")
        return self.editor

    def added(self, name: str) -> LabelledFaces:
        """What a set adds to the training faces: pictures that were made, and not from faces that are held out or
        tested on; of a set of real faces all that stand in none of these.

        Raises:
            ConfigError: it was not given.
            DatasetError: it adds nothing.
        """
        return self.faces_of(self.need_set(name).select(self._added_ids(name)))

    def _added_ids(self, name: str) -> list[str]:
        table = self.need_set(name).table
        known = [self.train, self.test, *([] if self.validation is None else [self.validation])]
        unseen = self.held_out.union(*(faces.ids for faces in known[1:]))
        made = table["origin"].isin(ADDED) if "origin" in table else pd.Series(False, table.index)
        lent = pd.Series(False, table.index)
        for faces in known if "source_id" in table else []:
            lent |= donors_of(table, faces.table).isin(unseen)
        if not made.any():
            made = ~table.index.to_series().isin(set(self.train.ids))
        good = made & ~lent & ~are_copies(table) & ~table.index.to_series().isin(unseen) & (table["split"] == "train")
        if not good.any():
            raise DatasetError(f"'{name}' adds no picture to the training faces: none in its split 'train' was made.")
        return list(table.index[good])

    @cached_property
    def orders(self) -> pd.DataFrame:
        """The pictures that arms add: one row each, with ``y`` and ``g`` of the cell that it is for and the row of its
        ``donor`` among :attr:`faces` (-1 where there is none).

        These are the edits of the set ``balanced``. Without one, donors are drawn from the largest group of each class
        until all of its groups are as large.
        """
        return self._orders_of_edits() if "balanced" in self.sets else self._orders_drawn()

    def _orders_of_edits(self) -> pd.DataFrame:
        dataset = self.sets["balanced"].select(self._added_ids("balanced"))
        labels = self._labels(dataset)
        rows = pd.DataFrame(
            {
                "y": pd.Index(self.classes).get_indexer(pd.Index(labels["y"])),
                "g": pd.Index(self.groups).get_indexer(pd.Index(labels["g"])),
                "donor": -1,
            },
            index=labels.index,
        )
        if "source_id" in dataset.table:
            place = pd.Index(self.faces.ids)
            rows["donor"] = place.get_indexer(pd.Index(donors_of(dataset.table.loc[labels.index], self.train.table)))
        return rows[(rows["y"] >= 0) & (rows["g"] >= 0)]

    def _orders_drawn(self) -> pd.DataFrame:
        rng = np.random.default_rng([self.settings.fit.seed, 2])
        rows: list[tuple[int, int, int]] = []
        for y, counts in enumerate(self.counts(self.faces)):
            donors = np.flatnonzero((self.faces.y == y) & (self.faces.g == counts.argmax()))
            for g, count in enumerate(counts):
                chosen = rng.permutation(donors)[: counts.max() - count]
                rows += [(y, g, int(donor)) for donor in chosen]
        return pd.DataFrame(rows, columns=["y", "g", "donor"]).astype(np.int64)

    @property
    def ordered(self) -> np.ndarray:
        """Pictures added to each cell (classes, groups), by every arm that adds any."""
        return cell_counts(self.orders["y"].to_numpy(), self.orders["g"].to_numpy(), self.shape)

    def drawn(self, faces: LabelledFaces, rng: np.random.Generator, *, repeat: bool = False) -> LabelledFaces:
        """Faces drawn to the counts of :attr:`ordered`.

        Args:
            faces: to draw from.
            rng: decides which.
            repeat: draw faces again where a cell has fewer than are wanted; otherwise all that it has are taken.
        """
        rows: list[int] = []
        for (y, g), count in np.ndenumerate(self.ordered):
            mine = np.flatnonzero((faces.y == y) & (faces.g == g))
            if repeat and len(mine):
                rows += rng.permutation(np.tile(mine, -(-count // len(mine))))[:count].tolist()
            else:
                rows += rng.permutation(mine)[:count].tolist()
        return faces.take(rows)
