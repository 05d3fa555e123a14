"""People in a dataset: each in one split, groups of as many people and images, counts held to the published ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pandas as pd

from vlbias.arguments import checked_call
from vlbias.data.table import SPLITS, FaceDataset, Problem, hash_split
from vlbias.errors import ConfigError, LabelError, unknown
from vlbias.labels import label_texts
from vlbias.settings import checked_number

__all__ = ["balance_people", "compare_counts", "one_split_each", "split_of_person"]


def split_of_person(person: str, *, test: bool = True) -> str:
    """The split of a person that no list assigns, by a hash of the name: the same on every machine.

    Args:
        person: who.
        test: whether a tenth of the people are test; otherwise, where the test people are given, they are training.

    Example:
        >>> split_of_person("29.jpg"), split_of_person("29.jpg", test=False), split_of_person("4.jpg", test=False)
        ('test', 'train', 'val')
    """
    split = hash_split(person)
    return "train" if split == "test" and not test else split


def one_split_each(splits: Sequence[str], people: Sequence[str | None]) -> tuple[list[str], list[Problem]]:
    """Splits (n,) in which nobody stands twice: who does goes to the split with most of the images.

    Args:
        splits: of each image, as the lists have them.
        people: who is shown, ``None`` where that is not known.

    Returns:
        The splits, and a ``person_in_two_splits`` for each person that was moved.
    """
    counts: dict[str, Counter[str]] = {}
    for split, person in zip(splits, people, strict=True):
        if person is not None:
            counts.setdefault(person, Counter())[split] += 1
    # train before val before test where two hold as many
    home = {who: max(SPLITS, key=lambda split: found[split]) for who, found in counts.items() if len(found) > 1}
    problems = [
        Problem(who, "person_in_two_splits", f"{dict(sorted(counts[who].items()))}; all go to {split}")
        for who, split in home.items()
    ]
    moved = [split if person is None else home.get(person, split) for split, person in zip(splits, people, strict=True)]
    return moved, problems


def compare_counts(file: str, found: dict[str, int], published: dict[str, int]) -> list[Problem]:
    """A problem ``other_count`` for each number that is not the published one: a copy with a part of the set, say."""
    return [
        Problem(file, "other_count", f"{found[name]:,} {name}; the published set has {count:,}")
        for name, count in published.items()
        if found[name] != count
    ]


@checked_call
def balance_people(
    dataset: FaceDataset,
    protected: str,
    *,
    identity: str = "identity",
    min_images: int = 2,
    num_images: int | None = None,
    seed: int = 0,
) -> FaceDataset:
    """In each split, as many people and as many images of every group: what published searches are run on.

    People with fewer than ``min_images`` images are left out. Of each group as many people are drawn as the smallest
    has. Each keeps ``min_images`` images; the rest are drawn over the whole group, up to ``num_images``.

    Args:
        dataset: with the columns ``protected`` and ``identity``; rows without either are left out.
        protected: column of the groups.
        identity: column of the person.
        min_images: of a person, >= 1.
        num_images: of a group in a split; ``None`` for what the group with the fewest has. The published code has
            67,562 in training and 7,636 in the test of CelebA.
        seed: of the draws.

    Raises:
        UnknownNameError: no such column.
        ConfigError: a count out of range.
        LabelError: a person of two groups, a split where a group has nobody, or fewer images than ``num_images``.

    Source: Dooley, Sukthanker et al. (2023), the published loader. It takes the first ``min_images`` files of each
    person; here they are drawn too, so that a file's name does not decide.
    """
    for name in (protected, identity):
        if name not in dataset.table.columns:
            raise unknown("column", name, dataset.attributes, where=dataset.name)
    if min_images < 1 or (num_images is not None and num_images < min_images):
        raise ConfigError(
            f"`min_images` must be >= 1 and `num_images` at least that; got {min_images} and {num_images}."
        )
    rows = pd.DataFrame(
        {
            "split": dataset.table["split"].astype(str),
            "group": label_texts(dataset.table[protected]),
            "person": label_texts(dataset.table[identity]),
        }
    ).dropna()
    _refuse_two_groups(rows, protected)
    groups = sorted(rows["group"].unique())
    generator = np.random.default_rng(checked_number("seed", seed, low=0))
    kept = [
        _balanced_split(part, groups, min_images, num_images, generator) for _, part in rows.groupby("split", sort=True)
    ]
    chosen = set[str]().union(*kept)
    return dataset.select([item for item in dataset.ids if item in chosen])


def _refuse_two_groups(rows: pd.DataFrame, protected: str) -> None:
    groups = rows.groupby("person", sort=True)["group"].nunique()
    if len(several := groups.index[groups > 1]):
        raise LabelError(
            f"{len(several)} people have several values of `{protected}`, the first is '{several[0]}'. Give each "
            "person one, say the value most of the images have."
        )


def _balanced_split(
    rows: pd.DataFrame, all_groups: list[str], min_images: int, num_images: int | None, generator: np.random.Generator
) -> list[str]:
    """Ids of the images that one split keeps."""
    split = rows["split"].iloc[0]
    sizes = rows.groupby("person")["group"].transform("size")
    rows = rows[sizes >= min_images]
    people = {group: sorted(rows.loc[rows["group"] == group, "person"].unique()) for group in all_groups}
    num_people = min(len(found) for found in people.values())
    if num_people == 0:
        group = next(group for group, found in people.items() if not found)
        raise LabelError(f"the group '{group}' has nobody with {min_images} images in the split '{split}'.")
    drawn = {group: generator.permutation(found)[:num_people] for group, found in people.items()}
    # in a random order, each person's first images count as the ones that are kept
    rows = rows.sort_index().sample(frac=1, random_state=int(generator.integers(2**31)))
    rows = rows[rows["person"].isin(np.concatenate(list(drawn.values())))]
    is_extra = rows.groupby("person").cumcount() >= min_images
    available = rows["group"].value_counts()
    wanted = int(available.min()) if num_images is None else num_images
    if available.min() < wanted or num_people * min_images > wanted:
        raise LabelError(
            f"split '{split}': {num_people} people of each group, who have {int(available.min())} images or more, "
            f"cannot give {wanted}. `num_images` must lie in {num_people * min_images}..{int(available.min())}."
        )
    kept: list[str] = []
    for group in all_groups:
        mine = rows["group"] == group
        kept += rows.index[mine & ~is_extra].tolist()
        kept += rows.index[mine & is_extra][: wanted - num_people * min_images].tolist()
    return kept
