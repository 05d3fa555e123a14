"""What a trial is trained and evaluated on: images split by person, with one evaluation for both tasks."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from vlbias.arguments import checked_call
from vlbias.classify import LabelledImages
from vlbias.data.origins import are_copies, donors_of, origins
from vlbias.data.synthfaces import SynthFaces, drawn_dataset
from vlbias.data.twins import refuse_shared_pictures
from vlbias.errors import ConfigError, LabelError, unknown
from vlbias.labels import group_texts, label_texts
from vlbias.search.evaluation import CLASSIFY_OBJECTIVES, IDENTIFY_OBJECTIVES, Evaluation
from vlbias.search.gallery import balanced_gallery
from vlbias.search.metrics import Impostors
from vlbias.search.streaming import IN_MEMORY_BYTES, Images, hold
from vlbias.shown import plural
from vlbias.world.sampling import MAX_FACES

__all__ = ["Sample", "Task", "drawn_people", "make_task"]

_SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Sample:
    """Images of one split, ready to train on.

    Attributes:
        ids: item ids of the dataset, n of them.
        images: uint8 (n, 3, size, size), in memory or on disk.
        labels: int64 (n,), class to learn: the person's number in "identify", the target's in "classify".
        groups: int64 (n,) into ``Task.groups``.
        persons: int64 (n,), who is shown (each image its own person if the dataset does not say).
    """

    ids: tuple[str, ...]
    images: Images
    labels: np.ndarray
    groups: np.ndarray
    persons: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Task:
    """A dataset made ready; build it with :func:`make_task`.

    Attributes:
        kind: "identify" (people never seen in training are told apart) or "classify" (a target column).
        groups: names of the protected groups, sorted.
        classes: what the head is trained on: people of the training split, or values of the target.
        table: one row per image: split, label, group, person, edited; the exact composition of the study.
        in_memory_bytes: a split of more bytes is read from disk as it is used; results are the same.
    """

    dataset: LabelledImages
    kind: str
    protected: str
    target: str | None
    image_size: int
    groups: tuple[str, ...]
    classes: tuple[str, ...]
    table: pd.DataFrame
    edits: LabelledImages | None = None
    in_memory_bytes: int = IN_MEMORY_BYTES

    @property
    def objectives(self) -> tuple[str, ...]:
        """Names of everything that can be searched for, all minimised."""
        return IDENTIFY_OBJECTIVES if self.kind == "identify" else CLASSIFY_OBJECTIVES

    @property
    def has_edits(self) -> bool:
        """Whether any training image was edited."""
        return bool(self.table["edited"].any())

    @cached_property
    def train(self) -> Sample:
        """The training split, without edits."""
        return self._load("train")

    @cached_property
    def edited(self) -> Sample:
        """Edited images whose donors are in the training split."""
        return self._load("train", edited=True)

    @cached_property
    def val(self) -> Sample:
        """What trials are compared on."""
        return self._load("val")

    @cached_property
    def test(self) -> Sample:
        """What nobody chooses on."""
        return self._load("test")

    def sample(self, split: str) -> Sample:
        """One split, "train", "val" or "test", loaded on first use.

        Raises:
            UnknownNameError: no such split.
        """
        if split not in _SPLITS:
            raise unknown("split", split, _SPLITS)
        found: Sample = getattr(self, split)
        return found

    def evaluation(
        self, sample: Sample, outcome: np.ndarray, diversity: float, impostors: Impostors | None = None
    ) -> Evaluation:
        """What a model did on a sample, with the names and codes of this task; see :class:`Evaluation`."""
        num_classes = 0 if self.kind == "identify" else len(self.classes)
        return Evaluation(
            self.kind, self.groups, sample.groups, sample.persons, outcome, num_classes, diversity, impostors
        )

    def _load(self, split: str, edited: bool = False) -> Sample:
        rows = self.table[(self.table["split"] == split) & (self.table["edited"] == edited)]
        source = self.edits if edited and self.edits is not None else self.dataset
        labels, groups = self.codes(rows)
        return Sample(
            ids=tuple(rows["id"]),
            images=hold(source, list(rows["id"]), self.image_size, self.in_memory_bytes),
            labels=labels,
            groups=groups,
            persons=np.asarray(pd.factorize(rows["person"], sort=True)[0], dtype=np.int64),
        )

    def codes(self, rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
        """Labels and groups (n,), int64, of rows of :attr:`table`."""
        known = {name: code for code, name in enumerate(self.classes)}
        # People of the validation and test splits are not classes; they are only told apart.
        labels = np.asarray([known.get(str(label), -1) for label in rows["label"]], dtype=np.int64)
        return labels, np.searchsorted(np.asarray(self.groups), rows["group"].to_numpy(str)).astype(np.int64)

    def fingerprint(self) -> dict[str, Any]:
        """What makes two studies the same: which images, in which split, with which labels."""
        columns = ["id", "split", "label", "group", "edited"]
        text = self.table[columns].to_csv(index=False)
        return {
            "kind": self.kind,
            "protected": self.protected,
            "target": self.target,
            "image_size": self.image_size,
            "images": len(self.table),
            "table_crc32": zlib.crc32(text.encode()),
        }


@checked_call
def make_task(
    dataset: LabelledImages,
    *,
    protected: str | Sequence[str],
    task: str = "identify",
    target: str | None = None,
    identity: str = "identity",
    edits: LabelledImages | None = None,
    image_size: int = 64,
    balance_gallery: bool = True,
) -> Task:
    """Check a dataset and lay out its splits.

    Args:
        dataset: anything ``load_dataset`` returns. Rows whose ``origin`` is "edited" are edits, never evaluated on.
        protected: column of the groups; of several, every combination of values is a group.
        task: "identify" or "classify".
        target: column to predict, for "classify".
        identity: column of the person; needed by "identify". "classify" uses it where it exists, so that intervals
            resample people and not images.
        edits: a second dataset of edited images (columns like the first, ``source_id`` their donors).
        image_size: side in pixels that images are brought to.
        balance_gallery: for "identify", cut the validation and the test split to galleries of equally many people of
            each group and images of each, the same in both splits, so that groups and splits can be compared; see
            :func:`vlbias.search.gallery.balanced_gallery`. False keeps all images.

    Splits: the dataset's own if no person is in two of them; otherwise people are dealt out 60 / 20 / 20 by a hash of
    their name, whole (stored in ``Task.table``; the same on every machine).

    Raises:
        ConfigError: an unknown task, or a target where none belongs.
        UnknownNameError: a column that does not exist.
        LabelError: missing protected values, a group of one, no person with two images, an empty split.
    """
    if task not in ("identify", "classify"):
        raise unknown("task", task, ["identify", "classify"])
    if (target is None) != (task == "identify"):
        raise ConfigError(
            f"`target` is the column to predict in task 'classify' and only there; got target={target!r} in task "
            f"'{task}'. Give both (--task classify --target COLUMN), or neither."
        )
    columns = list(dataset.table.columns)
    protected_columns = [protected] if isinstance(protected, str) else list(protected)
    if not protected_columns:
        raise ConfigError("`protected` is empty; name at least one column.")
    for name in (*protected_columns, target, identity if task == "identify" else None):
        if name is not None and name not in columns:
            raise unknown("column", name, columns, where=str(getattr(dataset, "name", "the dataset")))
    person = identity if identity in columns else None
    label = target or identity
    table = _rows(dataset, protected_columns, label, person, dataset.table)
    if edits is not None:
        if missing := [name for name in (*protected_columns, label) if name not in edits.table.columns]:
            raise LabelError(f"`edits` lacks column {missing[0]!r} of the dataset.")
        known_person = person if person in edits.table.columns else None
        extra = _rows(edits, protected_columns, label, known_person, dataset.table)
        table = pd.concat([table, extra.assign(edited=True)], ignore_index=True)
    joined = " & ".join(protected_columns)
    _refuse_missing(table, joined, label)
    table = _split_by_person(table, by_person=person is not None)
    table = _edits_follow_their_donors(_copies_to_learn_from(table), task)

    groups = tuple(sorted(table["group"].unique()))
    if len(groups) < 2:
        raise LabelError(f"`{joined}` has the single value {groups[0]!r}; gaps need at least two groups.")
    real = table[~table["edited"]]
    classes = tuple(sorted(real.loc[real["split"] == "train", "label"].unique()))
    made = Task(dataset, task, joined, target, image_size, groups, classes, table, edits)
    _check_splits(made, real)
    return replace(made, table=_balanced(table)) if balance_gallery and task == "identify" else made


def _balanced(table: pd.DataFrame) -> pd.DataFrame:
    """The table without what is too much of some group in the validation and test splits."""
    held_out = table[table["split"].isin(_SPLITS[1:])]
    cells = [f"{split} {group}" for split, group in zip(held_out["split"], held_out["group"], strict=True)]
    kept = balanced_gallery(list(held_out["id"]), list(held_out["person"]), cells)
    return table.drop(held_out.index[~kept]).reset_index(drop=True)


def _rows(
    dataset: LabelledImages, protected: Sequence[str], label: str, person: str | None, faces: pd.DataFrame
) -> pd.DataFrame:
    """A row for each picture; ``faces`` is the table of its donors."""
    table = dataset.table
    named = "source_id" in table.columns
    source = donors_of(table, faces) if named else pd.Series(None, index=table.index, dtype=object)
    return pd.DataFrame(
        {
            "id": table.index.astype(str),
            "split": table["split"].astype(str).to_numpy(),
            "label": label_texts(table[label]).to_numpy(),
            "group": group_texts(table, protected).to_numpy(),
            "person": label_texts(table[person]).to_numpy() if person else table.index.astype(str),
            "edited": (origins(table) == "edited").to_numpy(),
            "source": source.astype(object).to_numpy(),
            "copied": are_copies(table).to_numpy(),
        }
    )


def _refuse_missing(table: pd.DataFrame, protected: str, label: str) -> None:
    for column, name in (("group", protected), ("label", label), ("person", "identity")):
        if missing := int(table[column].isna().sum()):
            first = table.loc[table[column].isna(), "id"].iloc[0]
            raise LabelError(
                f"`{name}` is missing for {missing} of {len(table)} images (first: {first}). "
                f"Select the labelled ones first: dataset.select(dataset.table['{name}'].notna())."
            )


def _split_by_person(table: pd.DataFrame, by_person: bool) -> pd.DataFrame:
    real = table[~table["edited"]]
    if not by_person or (real.groupby("person")["split"].nunique() <= 1).all():
        return table
    share = table["person"].map(lambda name: zlib.crc32(str(name).encode()) % 10)
    return table.assign(split=np.select([share < 6, share < 8], ["train", "val"], "test"))


def _copies_to_learn_from(table: pd.DataFrame) -> pd.DataFrame:
    """Keep the copies of training images only: a test image would count twice. Among edits there is none of use."""
    kept = ~table["copied"] | ((table["split"] == "train") & ~table["edited"])
    return table[kept].drop(columns="copied").reset_index(drop=True)


def _edits_follow_their_donors(table: pd.DataFrame, task: str) -> pd.DataFrame:
    """Keep the edits of training images only: an edit of a test image in training would leak its person."""
    if not table["edited"].any():
        return table
    split_of = dict(zip(table["id"], table["split"], strict=True))
    people = set(table.loc[~table["edited"] & (table["split"] == "train"), "person"])
    if task == "identify":
        belongs = table["person"].isin(people)
    else:
        belongs = table["source"].map(lambda donor: split_of.get(str(donor)) == "train")
    edits = table[table["edited"] & belongs].assign(split="train")
    return pd.concat([table[~table["edited"]], edits], ignore_index=True)


def _check_splits(task: Task, real: pd.DataFrame) -> None:
    refuse_shared_pictures(task.dataset, {split: real.loc[real["split"] == split, "id"].tolist() for split in _SPLITS})
    for split in _SPLITS:
        rows = real[real["split"] == split]
        if rows.empty:
            raise LabelError(f"Split '{split}' has no images; the search needs train, val and test.")
        if split == "train":
            continue
        counts = rows["group"].value_counts().reindex(list(task.groups), fill_value=0)
        if counts.min() < 2:
            name = counts.idxmin()
            raise LabelError(
                f"Group {name!r} of `{task.protected}` has {plural(counts.min(), 'image')} in split '{split}'; "
                "a gap needs at least 2. Merge small groups or leave them out."
            )
        if task.kind == "identify":
            sizes = rows.groupby("person")["id"].transform("size")
            probes = rows[sizes > 1]["group"].value_counts().reindex(list(task.groups), fill_value=0)
            if probes.min() == 0:
                raise LabelError(
                    f"Group {probes.idxmin()!r} has no person with two images in split '{split}'; "
                    "nobody can be identified there."
                )
        elif unseen := sorted(set(rows["label"]) - set(task.classes)):
            raise LabelError(f"Split '{split}' contains `{task.target}` = {unseen[0]!r}, which no training image has.")
    if len(task.classes) < 2:
        raise LabelError(f"Training needs at least 2 classes; split 'train' has {len(task.classes)}.")


@checked_call
def drawn_people(num_images: int = 2400, per_person: int = 8, *, seed: int = 0, image_size: int = 64) -> SynthFaces:
    """People of the embedded world, several pictures each: same geometry, other pose, light, expression and glasses.

    Args:
        num_images: in all; the number of people is ``num_images // per_person``.
        per_person: pictures of each, >= 2.
        seed: of the world.
        image_size: pixels.
    """
    from vlbias.world import identities

    if num_images > MAX_FACES:
        raise ConfigError(f"At most {MAX_FACES:,} faces are drawn; got {num_images:,}.")
    if per_person < 2 or num_images < 2 * per_person:
        raise ConfigError(f"Needs two people with two pictures each; got {num_images} images, {per_person} per person.")
    people = num_images // per_person
    ids = [f"person-{seed}-{person:05d}-{j:02d}" for person in range(people) for j in range(per_person)]
    return drawn_dataset(
        identities(people, per_person, seed=seed), ids, image_size=image_size, name="synthfaces people"
    )
