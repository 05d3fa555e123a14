"""Leave-one-out identification ranks and the gaps of K groups.

The gallery is the whole evaluation set. For probe i, j* is the nearest *other* image of the same person;
``rank_by_id`` counts the other people who have an image at least as close as j*, ``rank_by_image`` counts those
images. The probe is identified when its rank is 0. Source: Dooley, Sukthanker et al., "Rethinking Bias Mitigation:
Fairer Architectures Make for Fairer Face Recognition", NeurIPS 2023, section 3 and its released code. There ties go in
favour of the probe, so that a network that maps every face to one point identifies everybody; here they go against it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from torch import Tensor

from vlbias.errors import LabelError, ShapeError

__all__ = [
    "IdentificationRanks",
    "Impostors",
    "group_table",
    "identification_ranks",
    "published_two_group",
]

#: Cosines that differ by less are equal: in float64, and in shorter types, where copies of a picture round apart.
_TIE, _TIE_SHORT = 1e-12, 1e-6


@dataclass(frozen=True)
class Impostors:
    """Who stands between probes and their own people; what a person's absence from the gallery would change.

    Attributes:
        tied: bool (n,), probes for which somebody else is exactly as close as the nearest image of the same person.
        sole: float64 (g, p), probes of a group whose only impostor is that person (persons in sorted order).
        people: float64 (g, p), probes of a group for which that person is at least as close.
        images: float64 (g, p), images of that person at least as close, summed over the probes of a group.
    """

    tied: np.ndarray
    sole: np.ndarray
    people: np.ndarray
    images: np.ndarray


@dataclass(frozen=True)
class IdentificationRanks:
    """Ranks of n probes; NaN where a person has a single image, so that nothing can be found.

    Attributes:
        by_id: float64 (n,), number of other people at least as close as the nearest image of the same person.
        by_image: float64 (n,), number of other people's images at least as close.
        impostors: who they are; None if only the ranks are known.
    """

    by_id: np.ndarray
    by_image: np.ndarray
    impostors: Impostors | None = None

    @property
    def num_singletons(self) -> int:
        """Probes without a second image of the same person."""
        return int(np.isnan(self.by_id).sum())

    @property
    def num_ties(self) -> int:
        """Probes that a tie counted against."""
        return 0 if self.impostors is None else int(self.impostors.tied.sum())


def identification_ranks(
    embeddings: ArrayLike | Tensor,
    identities: Sequence[object] | np.ndarray,
    groups: Sequence[object] | np.ndarray | None = None,
    *,
    normalize: bool = True,
    chunk_size: int = 256,
) -> IdentificationRanks:
    """Rank every image against all others without sorting and without the full distance matrix.

    With the gallery ordered by person, the closest image of each person is a maximum over a run of rows, so the ranks
    of a chunk of probes are one matrix product, one segmented maximum and two comparisons.

    Args:
        embeddings: (n, d) array or tensor, any real dtype; distances are Euclidean, in float64.
        identities: (n,) person of each image, any hashable values.
        groups: (n,) group of each image, for the counts of :class:`Impostors`; None makes all one group.
        normalize: bring embeddings to unit length first (zero stays zero), as every margin loss assumes; False takes
            distances as they are.
        chunk_size: probes handled at once; memory is ``2 * 8 * n * chunk_size`` bytes.

    Returns:
        Ranks (n,). A tie counts against the probe: where all embeddings are equal, nobody is identified.

    Raises:
        ShapeError: embeddings not (n, d), or not finite.
        LabelError: identities or groups are not n values, or some are missing.

    Example:
        >>> faces = [[0.0], [3.0], [1.0], [9.0]]
        >>> identification_ranks(faces, ["a", "a", "b", "b"], normalize=False).by_id.tolist()
        [1.0, 1.0, 1.0, 1.0]
    """
    z, tie = _checked(embeddings, normalize)
    codes = _codes(identities, len(z), "identities")
    members = np.eye(1)[[0] * len(z)] if groups is None else _one_hot(_codes(groups, len(z), "groups"))

    order = np.argsort(codes, kind="stable")
    sorted_codes, gallery, members = codes[order], z[order], members[order]
    starts = np.flatnonzero(np.r_[True, sorted_codes[1:] != sorted_codes[:-1]])
    # |a - b|^2 = |a|^2 + |b|^2 - 2ab: with |b|^2 fixed for a probe, closeness is ab - |a|^2 / 2. Among unit vectors it
    # is the cosine; that of a zero vector (a failed detection) is 0, so it is nobody's double.
    half_norm = np.zeros((1, 1)) if normalize else 0.5 * np.einsum("nd,nd->n", gallery, gallery)[:, None]
    slack = tie * max(1.0, float(half_norm.max()))

    by_id, by_image, tied = np.empty(len(z)), np.empty(len(z)), np.zeros(len(z), dtype=bool)
    sole, people = np.zeros((2, len(starts), members.shape[1]))
    image_counts = np.zeros((len(z), members.shape[1]))
    for start in range(0, len(z), chunk_size):
        chunk = slice(start, min(start + chunk_size, len(z)))
        persons = sorted_codes[chunk]
        columns = np.arange(len(persons))
        closeness = gallery @ gallery[chunk].T - half_norm
        closeness[start + columns, columns] = -np.inf
        nearest = np.maximum.reduceat(closeness, starts, axis=0)
        mate = nearest[persons, columns]
        lonely = np.isneginf(mate)
        # A lonely probe has no rank: nobody is counted as its impostor.
        limit = np.where(lonely, np.inf, mate - slack)
        nearest[persons, columns] = -np.inf
        for person in np.unique(persons):
            own = slice(starts[person], starts[person + 1] if person + 1 < len(starts) else None)
            closeness[own, persons == person] = -np.inf
        before, images = nearest >= limit, closeness >= limit
        ranks = before.sum(axis=0).astype(float)
        by_id[chunk] = np.where(lonely, np.nan, ranks)
        by_image[chunk] = np.where(lonely, np.nan, images.sum(axis=0))
        tied[chunk] = (before & (nearest <= mate + slack)).any(axis=0)
        people += before @ members[chunk]
        sole += before[:, ranks == 1] @ members[chunk][ranks == 1]
        image_counts += images @ members[chunk]
    back = np.empty_like(order)
    back[order] = np.arange(len(order))
    impostors = Impostors(tied[back], sole.T, people.T, np.add.reduceat(image_counts, starts, axis=0).T)
    return IdentificationRanks(by_id[back], by_image[back], impostors)


def _checked(embeddings: ArrayLike | Tensor, normalize: bool) -> tuple[np.ndarray, float]:
    """Embeddings as float64 (n, d), and how far apart equal cosines may lie for their type."""
    if isinstance(embeddings, Tensor):
        tensor = embeddings.detach().cpu()
        embeddings = tensor.float() if tensor.is_floating_point() and tensor.element_size() < 4 else tensor
    given = np.asarray(embeddings)
    z = given.astype(np.float64)
    if z.ndim != 2 or z.shape[0] == 0:
        raise ShapeError(f"`embeddings` must be (n, d) with n >= 1; got {z.shape}.")
    if not np.isfinite(z).all():
        row = int(np.flatnonzero(~np.isfinite(z).all(axis=1))[0])
        raise ShapeError(f"`embeddings` must be finite; row {row} is not. Did training diverge?")
    if normalize:
        # By the largest entry first: squares of very large or small ones leave the range of floats.
        z = _divided(z, np.abs(z).max(axis=1, keepdims=True, initial=0.0))
        z = _divided(z, np.linalg.norm(z, axis=1, keepdims=True))
    is_short = given.dtype.kind == "f" and given.dtype.itemsize < 8
    return z, _TIE_SHORT if is_short else _TIE


def _divided(z: np.ndarray, length: np.ndarray) -> np.ndarray:
    """Rows by their lengths; zero stays zero."""
    return np.divide(z, length, out=np.zeros_like(z), where=length > 0)


def _one_hot(codes: np.ndarray) -> np.ndarray:
    return np.eye(int(codes.max()) + 1)[codes]


def group_table(
    ranks: IdentificationRanks,
    groups: Sequence[object] | np.ndarray,
    identities: Sequence[object] | np.ndarray | None = None,
) -> pd.DataFrame:
    """Means over images within each group.

    Args:
        ranks: of n probes.
        groups: (n,) group of each image.
        identities: (n,) only to count the people of each group.

    Returns:
        One row per group (sorted): images, probes (images that have a mate), identities, accuracy, error,
        rank_by_id, rank_by_image, and ``tied``, the probes that a tie counted against, where that is known.

    Raises:
        LabelError: a group has no probe at all, or labels are missing.
    """
    _codes(groups, len(ranks.by_id), "groups")
    frame = pd.DataFrame({"group": np.asarray(groups), "by_id": ranks.by_id, "by_image": ranks.by_image})
    frame["person"] = np.asarray(identities) if identities is not None else np.nan
    probes = frame.dropna(subset=["by_id"])
    grouped = probes.groupby("group", sort=True)
    images = frame.groupby("group", sort=True)["group"].size()
    if empty := sorted(set(images.index) - set(grouped.groups), key=str):
        raise LabelError(
            f"Group {empty[0]!r} has no image whose person has a second one; ranks are undefined. "
            "Leave the group out or add images."
        )
    table = pd.DataFrame({"images": images, "probes": grouped.size()})
    if identities is not None:
        table["identities"] = frame.groupby("group", sort=True)["person"].nunique()
    table["accuracy"] = grouped["by_id"].apply(lambda values: float((values == 0).mean()))
    table["error"] = 1.0 - table["accuracy"]
    table["rank_by_id"] = grouped["by_id"].mean()
    table["rank_by_image"] = grouped["by_image"].mean()
    if ranks.impostors is not None:
        table["tied"] = pd.Series(ranks.impostors.tied).groupby(np.asarray(groups)).sum().astype(int)
    return table


def published_two_group(table: pd.DataFrame, first: Any, second: Any) -> dict[str, float]:
    """The five published numbers for two groups, with ``first`` above the fraction bar as printed there.

    Args:
        table: what :func:`group_table` returns; it may hold more groups.
        first, second: row names, "male" and "female" in the paper.

    Returns:
        disparity |Acc_m - Acc_f|, rank_disparity |Rank_m - Rank_f|, ratio |1 - Acc_m / Acc_f|,
        rank_ratio |1 - Rank_m / Rank_f|, error_ratio |1 - Err_m / Err_f|; NaN where the divisor is 0.
    """
    for name in (first, second):
        if name not in table.index:
            raise LabelError(f"No group {name!r} in the table. Available: {', '.join(map(str, table.index))}.")

    def distance_from_one(column: str) -> float:
        above, below = float(table.loc[first, column]), float(table.loc[second, column])
        return float("nan") if below == 0 else abs(1.0 - above / below)

    return {
        "disparity": abs(float(table.loc[first, "accuracy"]) - float(table.loc[second, "accuracy"])),
        "rank_disparity": abs(float(table.loc[first, "rank_by_id"]) - float(table.loc[second, "rank_by_id"])),
        "ratio": distance_from_one("accuracy"),
        "rank_ratio": distance_from_one("rank_by_id"),
        "error_ratio": distance_from_one("error"),
    }


def _codes(values: Sequence[object] | np.ndarray, length: int, name: str) -> np.ndarray:
    """Values -> integer codes (n,) 0..C-1 in sorted order; missing ones are refused."""
    array = pd.Series(np.asarray(values)) if not isinstance(values, pd.Series) else values
    if len(array) != length:
        raise LabelError(f"`{name}` must hold {length} values, one per image; got {len(array)}.")
    if missing := int(array.isna().sum()):
        raise LabelError(f"`{name}` is missing for {missing} of {length} images. Leave those images out first.")
    return np.asarray(pd.factorize(array, sort=True)[0])
