"""Leave-one-out identification ranks and the gaps of K groups.

The gallery is the whole evaluation set. For probe i, j* is the nearest *other* image of the same person;
``rank_by_id`` counts the other people who have an image strictly closer than j*, ``rank_by_image`` counts those
images. The probe is identified when its rank is 0. Source: Dooley, Sukthanker et al., "Rethinking Bias Mitigation:
Fairer Architectures Make for Fairer Face Recognition", NeurIPS 2023, section 3 and its released code.
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

__all__ = ["IdentificationRanks", "group_table", "identification_ranks", "published_two_group", "summarize_groups"]


@dataclass(frozen=True)
class IdentificationRanks:
    """Ranks of n probes; NaN where a person has a single image, so that nothing can be found.

    Attributes:
        by_id: float64 (n,), number of other people closer than the nearest image of the same person.
        by_image: float64 (n,), number of other people's images closer than it.
        num_singletons: probes without a second image of the same person (NaN above, left out of every mean).
    """

    by_id: np.ndarray
    by_image: np.ndarray

    @property
    def num_singletons(self) -> int:
        """Probes without a second image of the same person."""
        return int(np.isnan(self.by_id).sum())


def identification_ranks(
    embeddings: ArrayLike | Tensor, identities: Sequence[Any] | np.ndarray, *, chunk_size: int = 256
) -> IdentificationRanks:
    """Rank every image against all others without sorting and without the full distance matrix.

    With the gallery ordered by person, the closest image of each person is a maximum over a run of rows, so the ranks
    of a chunk of probes are one matrix product, one segmented maximum and two comparisons.

    Args:
        embeddings: (n, d) array or tensor, any real dtype; distances are Euclidean, in float64.
        identities: (n,) person of each image, any hashable values.
        chunk_size: probes handled at once; memory is ``2 * 8 * n * chunk_size`` bytes.

    Returns:
        Ranks (n,). Equal distances are not closer: a probe whose copy is filed under another name keeps rank 0 only
        if its own second image is as close.

    Raises:
        ShapeError: embeddings not (n, d), or not finite.
        LabelError: identities are not n values, or some are missing.

    Example:
        >>> identification_ranks([[0.0], [3.0], [1.0], [9.0]], ["a", "a", "b", "b"]).by_id.tolist()
        [1.0, 1.0, 1.0, 1.0]
    """
    z = np.asarray(embeddings.detach().cpu() if isinstance(embeddings, Tensor) else embeddings, dtype=np.float64)
    if z.ndim != 2 or z.shape[0] == 0:
        raise ShapeError(f"`embeddings` must be (n, d) with n >= 1; got {z.shape}.")
    if not np.isfinite(z).all():
        row = int(np.flatnonzero(~np.isfinite(z).all(axis=1))[0])
        raise ShapeError(f"`embeddings` must be finite; row {row} is not. Did training diverge?")
    codes = _codes(identities, z.shape[0], "identities")

    order = np.argsort(codes, kind="stable")
    sorted_codes = codes[order]
    starts = np.flatnonzero(np.r_[True, sorted_codes[1:] != sorted_codes[:-1]])
    gallery = z[order]
    # Copies of one picture must tie exactly; a matrix product may round them apart, so each distinct row is
    # multiplied once and its result is shared.
    distinct, which = _distinct_rows(gallery)
    half_norm = 0.5 * np.einsum("nd,nd->n", distinct, distinct)[:, None]

    by_id, by_image = np.empty(len(z)), np.empty(len(z))
    for start in range(0, len(z), chunk_size):
        stop = min(start + chunk_size, len(z))
        columns = np.arange(stop - start)
        # |a - b|^2 = |a|^2 + |b|^2 - 2ab: with |b|^2 fixed for a probe, closeness is ab - |a|^2 / 2.
        closeness = distinct @ gallery[start:stop].T
        closeness -= half_norm
        if which is not None:
            closeness = closeness[which]
        closeness[np.arange(start, stop), columns] = -np.inf
        best_of_person = np.maximum.reduceat(closeness, starts, axis=0)
        persons = sorted_codes[start:stop]
        mate = best_of_person[persons, columns]
        lonely = np.isneginf(mate)
        by_id[start:stop] = (best_of_person > mate).sum(axis=0)
        closer = closeness > mate
        images = closer.sum(axis=0)
        by_image[start:stop] = images  # images of the same person are never closer than its nearest one
        by_id[start:stop][lonely] = by_image[start:stop][lonely] = np.nan
    back = np.empty_like(order)
    back[order] = np.arange(len(order))
    return IdentificationRanks(by_id[back], by_image[back])


def group_table(
    ranks: IdentificationRanks, groups: Sequence[Any] | np.ndarray, identities: Sequence[Any] | np.ndarray | None = None
) -> pd.DataFrame:
    """Means over images within each group.

    Args:
        ranks: of n probes.
        groups: (n,) group of each image.
        identities: (n,) only to count the people of each group.

    Returns:
        One row per group (sorted): images, probes (images that have a mate), identities, accuracy, error,
        rank_by_id, rank_by_image.

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
    return table


def summarize_groups(values: np.ndarray, name: str) -> dict[str, float]:
    """Gap (max - min), ratio (min / max) and the two ends of K group values.

    For two groups the gap is the published disparity. A ratio of two zeros is 1: nobody is worse off.

    Example:
        >>> summarize_groups(np.array([0.8, 0.9, 0.6]), "accuracy")["accuracy_gap"]
        0.30000000000000004
    """
    low, high = float(np.min(values)), float(np.max(values))
    ratio = 1.0 if high == 0.0 else low / high
    return {f"{name}_gap": high - low, f"{name}_ratio": ratio, f"{name}_min": low, f"{name}_max": high}


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


def _codes(values: Sequence[Any] | np.ndarray, length: int, name: str) -> np.ndarray:
    """Values -> integer codes (n,) 0..C-1 in sorted order; missing ones are refused."""
    array = pd.Series(np.asarray(values)) if not isinstance(values, pd.Series) else values
    if len(array) != length:
        raise LabelError(f"`{name}` must hold {length} values, one per image; got {len(array)}.")
    if missing := int(array.isna().sum()):
        raise LabelError(f"`{name}` is missing for {missing} of {length} images. Leave those images out first.")
    return np.asarray(pd.factorize(array, sort=True)[0])


def _distinct_rows(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Distinct rows and, if any row repeats, the index that rebuilds the input from them."""
    # -0.0 and 0.0 are the same number but not the same bytes.
    view = np.ascontiguousarray(rows + 0.0).view(np.dtype((np.void, rows.dtype.itemsize * rows.shape[1]))).ravel()
    _, first, inverse = np.unique(view, return_index=True, return_inverse=True)
    if len(first) == len(rows):
        return rows, None
    return rows[first], inverse
