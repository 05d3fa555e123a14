"""A small network that tells edits from originals, cross-fitted.

It also sees that donors come from another group, so what it reaches is compared with the same network on the unedited
donors, against the same originals.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from vlbias.classify import FitSettings, fit
from vlbias.leak.probe import Pairs, folds_of
from vlbias.progress import Progress

__all__ = ["FOLDS", "network_pairs"]

FOLDS = 2


def network_pairs(
    pictures: Tensor,
    is_edit: np.ndarray,
    cells: np.ndarray,
    faces: np.ndarray,
    *,
    settings: FitSettings,
    progress: Progress | None = None,
) -> Pairs:
    """Score every picture by a network that was fitted on other faces.

    Args:
        pictures: uint8 (n, 3, h, w).
        is_edit: (n,) bool: what is told from the rest, edits or unedited donors.
        cells: (n,) numbers of cells, >= 0.
        faces: (n,) whose picture it is.
        settings: of each of the ``FOLDS`` fits.
        progress: counted up by one each step.

    Returns:
        Pairs of one cell and one fold.
    """
    folds = folds_of(is_edit, cells, faces, num_folds=FOLDS, seed=settings.seed)
    scores = np.zeros(len(is_edit))
    for fold in range(FOLDS):
        held_out = np.flatnonzero(folds == fold)
        fitted = evened(is_edit, cells, np.flatnonzero(folds != fold))
        labels = is_edit[fitted].tolist()
        model = fit(pictures[torch.from_numpy(fitted)], labels, settings=settings, progress=progress)
        shares = model.predict_proba(pictures[torch.from_numpy(held_out)])
        scores[held_out] = shares[:, model.classes.index(True)].numpy()
    return Pairs(scores, is_edit, cells * FOLDS + folds)


def evened(is_edit: np.ndarray, cells: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Positions, repeated so that each cell has as many edits as originals; a cell without one of the two is left out.

    Example:
        >>> evened(np.array([True, True, True, False]), np.zeros(4, int), np.arange(4)).tolist()
        [0, 1, 2, 3, 3, 3]
    """
    parts = []
    for cell in np.unique(cells[places]):
        kinds = [places[(cells[places] == cell) & (is_edit[places] == kind)] for kind in (True, False)]
        if min(map(len, kinds)) > 0:
            parts += [np.resize(kind, max(map(len, kinds))) for kind in kinds]
    return np.concatenate(parts)
