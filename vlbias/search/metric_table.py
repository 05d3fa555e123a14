"""The metric table alone, for embeddings or a model that somebody already has."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike
from torch import nn

from vlbias.classify import LabelledImages
from vlbias.errors import LabelError, ShapeError, unknown
from vlbias.labels import group_texts, label_texts
from vlbias.search.evaluation import Evaluation
from vlbias.search.gallery import balanced_gallery
from vlbias.search.inference import intervals
from vlbias.search.metrics import identification_ranks, published_two_group
from vlbias.search.streaming import hold
from vlbias.search.trainer import embed

__all__ = ["evaluate"]


def evaluate(
    embeddings_or_model: ArrayLike | torch.Tensor | nn.Module,
    dataset: LabelledImages,
    protected: str | Sequence[str],
    *,
    identity: str = "identity",
    image_size: int | None = None,
    batch_size: int = 256,
    balance_gallery: bool = True,
    level: float = 0.95,
) -> pd.DataFrame:
    """Identification by group: leave-one-out accuracy and ranks within the whole dataset.

    Args:
        embeddings_or_model: embeddings (n, d) in the order of ``dataset.table``, or a module that maps images in
            [-1, 1] (b, 3, h, w) to embeddings; a model sees both mirror images, as published.
        dataset: anything ``load_dataset`` returns, with columns ``protected`` and ``identity``.
        protected: column of the groups; of several, every combination of values is a group.
        image_size: side in pixels, for a model; that which it was trained at if it knows (``load_model``), else 64.
        balance_gallery: equally many people of each group and images of each; see
            :func:`vlbias.search.gallery.balanced_gallery`. False takes all images.
        level: of the intervals.

    Returns:
        One row per group (images, probes, identities, accuracy, error, rank_by_id, rank_by_image, tied).
        ``.attrs["summary"]`` holds every objective of a search (error, rank_gap, ...), the number of images without
        a mate (``num_singletons``), of probes that a tie counted against (``num_ties``), of images that balancing
        left out (``num_left_out``) and, for exactly two groups, the published numbers with the first group (in sorted
        order) above the fraction bar. ``.attrs["intervals"]`` holds (low, high) of every objective.

    Raises:
        UnknownNameError: no such column. LabelError: missing labels, a group without probes. ShapeError: another
            number of embeddings than images.
    """
    table = dataset.table
    columns = [protected] if isinstance(protected, str) else list(protected)
    for name in (*columns, identity):
        if name not in table.columns:
            raise unknown("column", name, table.columns, where=str(getattr(dataset, "name", "the dataset")))
    groups, people = group_texts(table, columns), label_texts(table[identity])
    for name, labels in ((" & ".join(columns), groups), (identity, people)):
        if missing := int(labels.isna().sum()):
            raise LabelError(f"`{name}` is missing for {missing} of {len(table)} images. Leave those images out first.")
    kept = np.ones(len(table), dtype=bool)
    if balance_gallery:
        kept = balanced_gallery(list(table.index), list(people), list(groups))
    z = embeddings_or_model
    if isinstance(z, nn.Module):
        device = next((p.device for p in z.parameters()), None)
        size = image_size or getattr(z, "image_size", None) or 64
        z = embed(z, hold(dataset, list(table.index[kept]), size), batch_size=batch_size, device=device)
    else:
        z = z if isinstance(z, torch.Tensor) else np.asarray(z)
        if len(z) != len(table):
            raise ShapeError(f"Expected one embedding per image, {len(table)}; got {len(z)}.")
        z = z[torch.from_numpy(kept)] if isinstance(z, torch.Tensor) else z[kept]
    evaluation = _evaluation(z, people[kept].to_numpy(object), groups[kept].to_numpy(object))
    rows = evaluation.table()
    summary: dict[str, float] = {
        **evaluation.objectives(),
        "num_singletons": evaluation.num_singletons,
        "num_ties": int(rows["tied"].sum()),
        "num_left_out": int((~kept).sum()),
    }
    if len(rows) == 2:
        summary |= {f"published_{key}": value for key, value in published_two_group(rows, *rows.index).items()}
    rows.attrs["summary"] = summary
    rows.attrs["intervals"] = intervals(evaluation, level=level)
    return rows


def _evaluation(z: ArrayLike | torch.Tensor, people: np.ndarray, groups: np.ndarray) -> Evaluation:
    names = sorted(set(groups))
    ranks = identification_ranks(z, people, groups)
    codes = np.asarray(pd.Categorical(groups, categories=names).codes, dtype=np.int64)
    persons = np.asarray(pd.factorize(people, sort=True)[0])
    outcome = np.stack([ranks.by_id, ranks.by_image])
    return Evaluation("identify", tuple(names), codes, persons, outcome, impostors=ranks.impostors)
