"""CLIP's readings of dipoles, as numbers: log-odds of the positive pole."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from vlbias.clip import Clip
from vlbias.paths.dipole import Dipole

__all__ = ["clip_log_odds", "pseudo_labels"]


def clip_log_odds(clip: Clip, features: torch.Tensor, dipoles: Mapping[str, Dipole]) -> torch.Tensor:
    """Log-odds (b, m) of the positive pole of each dipole, for unit image features (b, e); differentiable.

    The sigmoid of a column is what ``Clip.zero_shot`` returns for the two poles.
    """
    columns = [
        clip.logit_scale * features @ (clip.text_embedding(d.positive) - clip.text_embedding(d.negative))
        for d in dipoles.values()
    ]
    return torch.stack(columns, dim=1)


def pseudo_labels(log_odds: torch.Tensor, unsure: float = 0.1) -> torch.Tensor:
    """Labels 1 and 0 (NaN where unsure) from log-odds (n, m) of a scorer whose zero may be off.

    The border of each column is put where two groups separate best (Otsu's threshold: largest variance between them),
    as CLIP's own zero depends on the wording of the prompts; the ``unsure`` share of the faces nearest to it stays
    without a label.

    Returns:
        float32 (n, m).
    """
    out = torch.full_like(log_odds, float("nan"), dtype=torch.float32)
    for j, column in enumerate(log_odds.T):
        border = otsu_threshold(column)
        labels = (column > border).float()
        distance = (column - border).abs()
        if unsure > 0:
            labels[distance < distance.quantile(unsure)] = float("nan")
        out[:, j] = labels
    return out


def otsu_threshold(values: torch.Tensor, smallest: float = 0.03) -> float:
    """Value that splits numbers (n,) into two groups of the largest variance between them.

    Args:
        values: numbers.
        smallest: share of the numbers that each group has at least.
    """
    ordered = values.double().sort().values
    n = len(ordered)
    total = ordered.cumsum(0)
    counts = torch.arange(1, n, dtype=torch.float64, device=values.device)
    low_mean = total[:-1] / counts
    high_mean = (total[-1] - total[:-1]) / (n - counts)
    between = counts * (n - counts) * (high_mean - low_mean) ** 2
    least = max(1, int(smallest * n))
    if n > 2 * least:
        between[: least - 1] = -1
        between[n - least :] = -1
    cut = int(between.argmax())
    return float((ordered[cut] + ordered[cut + 1]) / 2)
