"""Losses of CLIP training in which everything that is true of an image counts as a positive."""

from __future__ import annotations

import torch
import torch.nn.functional as F

__all__ = ["caption_loss", "statement_loss"]


def caption_loss(
    image_features: torch.Tensor, text_features: torch.Tensor, fit: torch.Tensor, logit_scale: torch.Tensor
) -> torch.Tensor:
    """InfoNCE of images against the distinct captions of a batch, both ways, with any number of positives.

    Every pair that fits is contrasted with the pairs of its image (and of its caption) that do not fit; other fitting
    pairs are left out, so that a caption which holds for many faces is nobody's false negative.

    Args:
        image_features: unit (b, e).
        text_features: unit (m, e), one row for each distinct caption.
        fit: (b, m), 1 where the caption fits the image, 0 where it does not, -1 where that is not known.
        logit_scale: scalar factor of the similarities.

    Returns:
        Scalar. With m = b and ``fit`` the identity it is the loss of CLIP (Radford et al. 2021, Fig. 3).
    """
    logits = logit_scale * image_features @ text_features.T
    positive, negative = fit == 1, fit == 0
    terms = []
    for dim in (1, 0):
        # -log(exp(s) / (exp(s) + sum over negatives)) = softplus(logsumexp over negatives - s)
        against = logits.masked_fill(~negative, float("-inf")).logsumexp(dim=dim, keepdim=True)
        against = against.clamp_min(-1e4)  # a row without negatives has nothing to be told from
        loss = F.softplus(against - logits) * positive
        counts = positive.sum(dim=dim)
        terms.append((loss.sum(dim=dim) / counts.clamp_min(1))[counts > 0].mean())
    return (terms[0] + terms[1]) / 2


def statement_loss(
    image_features: torch.Tensor,
    text_features: torch.Tensor,
    fit: torch.Tensor,
    groups: torch.Tensor,
    logit_scale: torch.Tensor,
) -> torch.Tensor:
    """Of the statements about one column, the probability must lie on those that fit the image.

    Args:
        image_features: unit (b, e).
        text_features: unit (m, e), one row for each statement.
        fit: (b, m), 1 where a statement fits the image, 0 where it does not, -1 where that is not known.
        groups: column that each statement is about, int64 (m,).
        logit_scale: scalar factor of the similarities.

    Returns:
        Scalar: -log of the share of the softmax (over the known statements of a column) that lies on fitting ones,
        mean over the images that have both kinds, then over the columns; 0 if no image has both.
    """
    logits = logit_scale * image_features @ text_features.T
    terms = []
    for group in groups.unique():
        columns = groups == group
        own, known = logits[:, columns], fit[:, columns]
        mixed = (known == 1).any(dim=1) & (known == 0).any(dim=1)
        if not mixed.any():
            continue
        own, known = own[mixed], known[mixed]
        fitting = own.masked_fill(known != 1, float("-inf")).logsumexp(dim=1)
        everything = own.masked_fill(known == -1, float("-inf")).logsumexp(dim=1)
        terms.append((everything - fitting).mean())
    return torch.stack(terms).mean() if terms else logits.sum() * 0
