"""The metric table alone, for embeddings or a model that somebody already has."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike
from torch import nn

from vlbias.classify import LabelledImages
from vlbias.errors import ShapeError, unknown
from vlbias.images import load_pixels
from vlbias.search.evaluation import Evaluation
from vlbias.search.metrics import group_table, identification_ranks, published_two_group
from vlbias.search.trainer import embed

__all__ = ["evaluate"]


def evaluate(
    embeddings_or_model: ArrayLike | torch.Tensor | nn.Module,
    dataset: LabelledImages,
    protected: str,
    *,
    identity: str = "identity",
    image_size: int | None = None,
    batch_size: int = 256,
) -> pd.DataFrame:
    """Identification by group: leave-one-out accuracy and ranks within the whole dataset.

    Args:
        embeddings_or_model: embeddings (n, d) in the order of ``dataset.table``, or a module that maps images in
            [-1, 1] (b, 3, h, w) to embeddings; a model sees both mirror images, as published.
        dataset: anything ``load_dataset`` returns, with columns ``protected`` and ``identity``.
        image_size: side in pixels, for a model (64 unless given).

    Returns:
        One row per group (images, probes, identities, accuracy, error, rank_by_id, rank_by_image).
        ``.attrs["summary"]`` holds every objective of a search (error, rank_gap, ...), the number of images without
        a mate (``num_singletons``) and, for exactly two groups, the published numbers with the first group (in
        sorted order) above the fraction bar.

    Raises:
        UnknownNameError: no such column. LabelError: missing labels, a group without probes. ShapeError: another
            number of embeddings than images.
    """
    table = dataset.table
    for name in (protected, identity):
        if name not in table.columns:
            raise unknown("column", name, table.columns, where=str(getattr(dataset, "name", "the dataset")))
    z = embeddings_or_model
    if isinstance(z, nn.Module):
        device = next((p.device for p in z.parameters()), None)
        z = embed(z, load_pixels(dataset, list(table.index), image_size or 64), batch_size=batch_size, device=device)
    z = z if isinstance(z, torch.Tensor) else np.asarray(z)
    if len(z) != len(table):
        raise ShapeError(f"Expected one embedding per image, {len(table)}; got {len(z)}.")
    people = table[identity].to_numpy(object)
    ranks = identification_ranks(z, people)
    rows = group_table(ranks, table[protected].astype(str).to_numpy(object), people)
    names = tuple(rows.index)
    evaluation = Evaluation(
        "identify",
        names,
        np.searchsorted(np.asarray(names), table[protected].astype(str).to_numpy(str)),
        np.asarray(pd.factorize(people)[0]),
        np.stack([ranks.by_id, ranks.by_image]),
    )
    summary: dict[str, float] = {**evaluation.objectives(), "num_singletons": ranks.num_singletons}
    if len(names) == 2:
        summary |= {f"published_{key}": value for key, value in published_two_group(rows, *names).items()}
    rows.attrs["summary"] = summary
    return rows
