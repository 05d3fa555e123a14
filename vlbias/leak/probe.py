"""How well edits can be told from originals of the same cell: held-out AUC, with an interval over faces.

An edit is compared with originals of its own cell alone (the same class, the same group), so that the cell gives
nothing away: statistics are centred in each cell, in each the edits weigh as much as the originals, and an AUC counts
pairs of an edit and an original of one cell. Pictures of one face (an edit, its donor, another edit of it) stand
together in a fold.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from threadpoolctl import threadpool_limits

__all__ = ["Auc", "Pairs", "cross_fitted", "folds_of", "interval", "repeated_folds", "resampled_faces", "single_aucs"]

FOLDS, REPEATS = 5, 3
#: A number further than this from its cell's middle, in standard deviations, counts as no further.
MAX_DEVIATION = 5.0
_TINY = 1e-6


@dataclass(frozen=True)
class Auc:
    """An area under the ROC curve (.5 is chance), or a difference of two, with its 95 % interval."""

    value: float
    low: float
    high: float


# ---------------------------------------------------------------------------------------------------------------------
# Pairs


class Pairs:
    """All pairs of an edit and an original that stand in one stratum, and which of the two scored higher.

    Args:
        scores: (n,), or (r, n) for r repeats whose AUCs are averaged.
        is_edit: (n,) bool.
        strata: (n,) or (r, n); only pictures of one stratum are compared.
    """

    def __init__(self, scores: np.ndarray, is_edit: np.ndarray, strata: np.ndarray):
        self.num_pictures = len(is_edit)
        self.parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        for values, places in zip(np.atleast_2d(scores), np.atleast_2d(strata), strict=True):
            for place in np.unique(places):
                edits, others = (np.flatnonzero((places == place) & kind) for kind in (is_edit, ~is_edit))
                difference = values[edits, None] - values[None, others]
                # A large stratum has more pairs than independent pictures; this weighs it by the latter.
                weight = 1 / max(1, len(edits) + len(others))
                self.parts.append((edits, others, weight * (np.sign(difference) + 1) / 2))

    def auc(self, weights: np.ndarray | None = None) -> np.ndarray:
        """Share of pairs in which the edit scored higher, ties half.

        Args:
            weights: of each picture, (b, n) for b resamples; ``None`` counts each once.

        Returns:
            (b,); NaN where a resample has no pair.
        """
        weights = np.ones((1, self.num_pictures)) if weights is None else weights
        won, all_pairs = np.zeros(len(weights)), np.zeros(len(weights))
        for edits, others, wins in self.parts:
            mine, theirs = weights[:, edits], weights[:, others]
            won += np.einsum("bo,bo->b", mine @ wins, theirs)
            all_pairs += mine.sum(1) * theirs.sum(1) / max(1, len(edits) + len(others))
        return np.divide(won, all_pairs, out=np.full(len(weights), np.nan), where=all_pairs > 0)


def single_aucs(statistics: pd.DataFrame, is_edit: np.ndarray, cells: np.ndarray) -> pd.Series:
    """Each statistic alone, without any fit: its AUC, in each cell whichever way round it tells more; largest first."""
    values = statistics.fillna(statistics.median()).fillna(0.0)
    parts = [cells == cell for cell in np.unique(cells)]
    weights = [1 / (1 / max(1, (is_edit & part).sum()) + 1 / max(1, (~is_edit & part).sum())) for part in parts]

    def told(column: np.ndarray) -> float:
        aucs = [float(Pairs(column[part], is_edit[part], cells[part]).auc()[0]) for part in parts]
        return 0.5 + float(np.average(np.abs(np.nan_to_num(aucs, nan=0.5) - 0.5), weights=weights))

    found = pd.Series({name: told(column.to_numpy()) for name, column in values.items()})
    return found.sort_values(ascending=False, kind="stable")


# ---------------------------------------------------------------------------------------------------------------------
# Cross-fitting


def folds_of(is_edit: np.ndarray, cells: np.ndarray, faces: np.ndarray, *, num_folds: int, seed: int) -> np.ndarray:
    """A fold for each picture (n,): faces stay together, cells and kinds are spread alike.

    Args:
        is_edit: (n,) bool.
        cells: (n,) numbers of cells, >= 0.
        faces: (n,) whose picture it is: the donor of an edit, an original itself.
        num_folds: >= 2.
        seed: of the draw.
    """
    kinds = cells * 2 + is_edit
    splitter = StratifiedGroupKFold(num_folds, shuffle=True, random_state=seed)
    found = np.zeros(len(kinds), dtype=int)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of a cell with fewer pictures than folds: it has no pair there
        for fold, (_, held_out) in enumerate(splitter.split(kinds, kinds, faces)):
            found[held_out] = fold
    return found


def repeated_folds(is_edit: np.ndarray, cells: np.ndarray, faces: np.ndarray, *, seed: int = 0) -> np.ndarray:
    """:func:`folds_of` drawn ``REPEATS`` times, (r, n), so that little depends on the draw."""
    seeds = range(seed, seed + REPEATS)
    return np.stack([folds_of(is_edit, cells, faces, num_folds=FOLDS, seed=each) for each in seeds])


def cross_fitted(
    statistics: np.ndarray, is_edit: np.ndarray, cells: np.ndarray, folds: np.ndarray, *, apart: bool = False
) -> Pairs:
    """Score every picture by a logistic regression that was fitted on other faces.

    Args:
        statistics: (n, d); NaN counts as the middle of its cell.
        is_edit: (n,) bool.
        cells: (n,) numbers of cells, >= 0.
        folds: (r, n), from :func:`repeated_folds`.
        apart: whether each cell may be read in its own way. If not, only what edits into all cells have in common is
            found: photographs of the groups differ in opposite ways in two cells, and that cancels out.

    Returns:
        Pairs of one cell and one fold: only scores of the same fit are compared.
    """
    scores = np.zeros(folds.shape)
    # threads of BLAS spin while they wait: on matrices so small that costs more than it saves
    with threadpool_limits(1, user_api="blas"):
        for repeat, fold in np.ndindex(len(folds), FOLDS):
            held_out = folds[repeat] == fold
            if held_out.any():
                fitted = (statistics[~held_out], is_edit[~held_out], cells[~held_out])
                scores[repeat, held_out] = _scores(*fitted, statistics[held_out], cells[held_out], apart)
    return Pairs(scores, is_edit, cells * FOLDS + folds)


def _scores(
    x: np.ndarray, is_edit: np.ndarray, cells: np.ndarray, new: np.ndarray, new_cells: np.ndarray, apart: bool
) -> np.ndarray:
    """Fit on some pictures, score others; the larger, the more like an edit."""
    weights = even_weights(is_edit, cells)
    centres = {cell: _centre(x[cells == cell], weights[cells == cell]) for cell in np.unique(cells)}
    x = _centred(x, cells, centres)
    scale = np.sqrt(np.average(x**2, axis=0, weights=weights))
    used = scale > _TINY
    if not used.any():
        return np.zeros(len(new))

    def inputs(values: np.ndarray, places: np.ndarray) -> np.ndarray:
        z = np.clip(values[:, used] / scale[used], -MAX_DEVIATION, MAX_DEVIATION)
        return _common_and_own(z, places, list(centres)) if apart else z

    model = LogisticRegression(solver="newton-cholesky").fit(inputs(x, cells), is_edit, sample_weight=weights)
    return model.decision_function(inputs(_centred(new, new_cells, centres), new_cells))


def _common_and_own(z: np.ndarray, cells: np.ndarray, known: Sequence[int]) -> np.ndarray:
    """Statistics (n, d), once for all cells and once for each."""
    return np.concatenate([z, *(z * (cells == cell)[:, None] for cell in known)], axis=1)


def even_weights(is_edit: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """Weights (n,) with mean 1: in each cell edits weigh as much as originals, cells by the smaller of the two.

    A cell without one of the two gets none.
    """
    weights = np.zeros(len(cells))
    for cell in np.unique(cells):
        kinds = [np.flatnonzero((cells == cell) & kind) for kind in (is_edit, ~is_edit)]
        if min(map(len, kinds)) > 0:
            share = 1 / sum(1 / len(kind) for kind in kinds)
            for kind in kinds:
                weights[kind] = share / len(kind)
    return weights * len(cells) / max(weights.sum(), _TINY)


def _centre(x: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted mean of each statistic over the pictures that have it."""
    weights = weights if weights.any() else np.ones(len(x))
    known = ~np.isnan(x)
    total = (known * weights[:, None]).sum(0)
    summed = (np.where(known, x, 0) * weights[:, None]).sum(0)
    return np.divide(summed, total, out=np.zeros_like(total), where=total > 0)


def _centred(x: np.ndarray, cells: np.ndarray, centres: dict[int, np.ndarray]) -> np.ndarray:
    nothing = np.zeros(x.shape[1])
    return np.nan_to_num(x - np.stack([centres.get(cell, nothing) for cell in cells]))


# ---------------------------------------------------------------------------------------------------------------------
# Intervals


def resampled_faces(faces: Iterable[str], num_resamples: int = 1000, *, seed: int = 0) -> pd.DataFrame:
    """How often each face was drawn: rows are resamples, columns faces."""
    names = sorted(set(faces))
    counts = np.random.default_rng(seed).multinomial(len(names), [1 / len(names)] * len(names), num_resamples)
    return pd.DataFrame(counts, columns=names)


def interval(value: float, draws: np.ndarray, *, bounds: tuple[float, float] = (0.0, 1.0)) -> Auc:
    """A held-out value with its 95 % interval: bootstrap percentiles, moved away from the value by the factor √2.

    Draws know the pictures that were scored, not those that were fitted on. Where there is nothing to tell, an AUC that
    is held out in turns is a sum over pairs of folds in which each pair stands twice, so its variance is twice that of
    independent folds; where there is much to tell, the factor is too careful.

    Args:
        value: measured on the pictures as they are.
        draws: measured on resamples of the faces; NaN where one had no pair.
        bounds: the interval ends there.
    """
    low, high = np.clip(value + math.sqrt(2) * (np.nanpercentile(draws, [2.5, 97.5]) - value), *bounds)
    return Auc(float(value), float(low), float(high))
