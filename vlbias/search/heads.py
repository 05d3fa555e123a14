"""Heads: from an embedding to margin logits and their loss.

ArcFace and CosFace are pytorch-metric-learning's, MagFace is ours (the package has none), softmax is a linear layer.
One interface for all, so that identification and classification share the training code: ``margin_logits`` for the
loss, ``logits`` for the prediction.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vlbias.classify import focal_loss
from vlbias.errors import ConfigError, unknown
from vlbias.settings import Settings, number

__all__ = ["HEADS", "Head", "MagFaceHead", "MagFaceSettings", "MarginHead", "SoftmaxHead", "make_head"]

#: The published settings of each margin head (FR-NAS); radians for ArcFace.
HEADS: Mapping[str, Mapping[str, float]] = MappingProxyType(
    {
        "arcface": {"scale": 64.0, "margin": 0.5},
        "cosface": {"scale": 64.0, "margin": 0.35},
        "magface": {"scale": 32.0},
        "softmax": {},
    }
)

#: A cosine of exactly +-1 has no finite arc-cosine gradient.
_INSIDE = 1e-6


class Head(nn.Module):
    """What every head offers. ``gamma`` is the focusing exponent of its loss."""

    gamma: float = 2.0

    def margin_logits(self, embeddings: Tensor, labels: Tensor, extra: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(b, d), (b,) => training logits (b, c) and a regulariser (b,) that is added to the loss.

        ``extra`` (b,) is what the margin of each image is larger by, in the head's own unit; None for nothing.
        """
        raise NotImplementedError

    def logits(self, embeddings: Tensor) -> Tensor:
        """(b, d) => logits (b, c) without any margin."""
        raise NotImplementedError

    def forward(self, embeddings: Tensor, labels: Tensor, extra: Tensor | None = None) -> Tensor:
        """Mean loss of a batch, a scalar."""
        logits, regularizer = self.margin_logits(embeddings, labels, extra)
        return focal_loss(logits, labels, gamma=self.gamma) + regularizer.mean()


class SoftmaxHead(Head):
    """A linear layer; cross entropy, as classifiers are usually trained."""

    gamma = 0.0

    def __init__(self, embedding_size: int, num_classes: int):
        super().__init__()
        self.linear = nn.Linear(embedding_size, num_classes)

    def logits(self, embeddings: Tensor) -> Tensor:
        """Embeddings (b, d) => logits (b, classes)."""
        return self.linear(embeddings)

    def margin_logits(self, embeddings: Tensor, labels: Tensor, extra: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """As :meth:`logits`, there is no margin; and nothing to add to the loss."""
        return self.linear(embeddings), embeddings.new_zeros(len(embeddings))


class MarginHead(Head):
    """ArcFace or CosFace of pytorch-metric-learning, opened at the logits because the loss on them is focal.

    Sources: Deng et al., CVPR 2019 (ArcFace, eq. 3); Wang et al., CVPR 2018 (CosFace, eq. 4).
    """

    def __init__(self, kind: str, embedding_size: int, num_classes: int, *, scale: float, margin: float):
        from pytorch_metric_learning import losses

        super().__init__()
        self.is_angle = kind == "arcface"
        if self.is_angle:
            self.loss = losses.ArcFaceLoss(num_classes, embedding_size, margin=math.degrees(margin), scale=scale)
        else:
            self.loss = losses.CosFaceLoss(num_classes, embedding_size, margin=margin, scale=scale)

    def logits(self, embeddings: Tensor) -> Tensor:
        """Embeddings (b, d) => scaled cosines (b, classes), without the margin."""
        return self.loss.scale_logits(self.loss.get_cosine(embeddings), embeddings)

    def margin_logits(self, embeddings: Tensor, labels: Tensor, extra: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Scaled cosines with the margin on the target (b, classes); nothing to add to the loss.

        ``extra`` is an angle of ArcFace and a cosine of CosFace.
        """
        cosine = self.loss.get_cosine(embeddings)
        of_target = cosine.gather(1, labels[:, None]).squeeze(1).clamp(-1 + _INSIDE, 1 - _INSIDE)
        if extra is not None:
            of_target = _turned(of_target, extra) if self.is_angle else of_target - extra
        shifted = self.loss.modify_cosine_of_target_classes(of_target)
        logits = cosine.scatter(1, labels[:, None], shifted[:, None])
        return self.loss.scale_logits(logits, embeddings), embeddings.new_zeros(len(embeddings))


@dataclass(frozen=True)
class MagFaceSettings(Settings):
    """Range [l_a, u_a] of feature norms, of margins [l_m, u_m] in radians, and the weight of the regulariser."""

    l_a: float = 10.0
    u_a: float = 110.0
    l_m: float = 0.45
    u_m: float = 0.8
    lambda_g: float = number(20.0, 0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.l_a < self.u_a or not 0 < self.l_m <= self.u_m < math.pi:
            raise ConfigError(f"MagFace needs 0 < l_a < u_a and 0 < l_m <= u_m < pi; got {self}.")


class MagFaceHead(Head):
    """ArcFace whose margin grows with the norm of the feature, and a regulariser that rewards large norms.

    m(a) = (u_m - l_m) / (u_a - l_a) * (a - l_a) + l_m and g(a) = a / u_a^2 + 1 / a, with a the norm clamped to
    [l_a, u_a]. Source: Meng et al., "MagFace", CVPR 2021, eq. 3 and section 3.2.
    """

    def __init__(
        self, embedding_size: int, num_classes: int, *, scale: float = 32.0, settings: MagFaceSettings | None = None
    ):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_classes, embedding_size))
        nn.init.normal_(self.weight)
        self.scale, self.settings = scale, settings or MagFaceSettings()

    def logits(self, embeddings: Tensor) -> Tensor:
        """Embeddings (b, d) => scaled cosines (b, classes), without the margin."""
        return self.scale * F.linear(F.normalize(embeddings), F.normalize(self.weight))

    def margin_logits(self, embeddings: Tensor, labels: Tensor, extra: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Scaled cosines with a margin that grows with the length of the embedding, and the regulariser (b,)."""
        s = self.settings
        a = embeddings.norm(dim=1).clamp(s.l_a, s.u_a)
        m = (s.u_m - s.l_m) / (s.u_a - s.l_a) * (a - s.l_a) + s.l_m
        cosine = F.linear(F.normalize(embeddings), F.normalize(self.weight))
        of_target = cosine.gather(1, labels[:, None]).squeeze(1).clamp(-1 + _INSIDE, 1 - _INSIDE)
        if extra is not None:
            of_target = _turned(of_target, extra)
        # cos(theta + m); beyond theta = pi - m it would rise again, so it goes on as a straight line there.
        shifted = torch.cos(torch.acos(of_target) + m)
        shifted = torch.where(of_target > torch.cos(math.pi - m), shifted, of_target - torch.sin(m) * m)
        g = a / s.u_a**2 + 1.0 / a
        return self.scale * cosine.scatter(1, labels[:, None], shifted[:, None]), s.lambda_g * g


def _turned(cosine: Tensor, angle: Tensor) -> Tensor:
    """cos(theta + angle), at most half a turn."""
    return torch.cos((torch.acos(cosine) + angle).clamp(max=math.pi - _INSIDE))


def make_head(name: str, embedding_size: int, num_classes: int, **settings: object) -> Head:
    """A head by name, with its published settings unless given.

    Raises:
        UnknownNameError: no such head.
        ConfigError: fewer than two classes.
    """
    if name not in HEADS:
        raise unknown("head", name, HEADS)
    if num_classes < 2:
        raise ConfigError(f"A head needs at least 2 classes to tell apart; got {num_classes}.")
    values: dict[str, Any] = {**HEADS[name], **settings}
    if name == "softmax":
        return SoftmaxHead(embedding_size, num_classes, **values)
    if name == "magface":
        return MagFaceHead(embedding_size, num_classes, **values)
    return MarginHead(name, embedding_size, num_classes, **values)
