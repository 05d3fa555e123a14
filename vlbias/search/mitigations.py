"""Trainings that mitigate bias, those which Dooley, Sukthanker et al. (2023) compare their search with.

Each changes the loss of a step, and nothing else of a training. What their code states is done as it states it; what it
leaves open is said here and in ``docs/search.md``. Groups are those of the training images; which group is ahead is
read from the training itself and never from validation or test people.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from vlbias.search.heads import Head

__all__ = ["MITIGATIONS", "NO_MITIGATION", "Mitigation", "make_mitigation", "removal_network"]

NO_MITIGATION = "none"
#: Share of the images of the group ahead that get a wrong label.
_FLIPPED = 0.3
#: An extra margin moves by so much an epoch (radians; of CosFace, cosines), up to the latter.
_MARGIN_STEP, _MOST_MARGIN = 0.02, 0.2
#: Steepness of the schedule of the gradient reversal.
_REVERSAL = 10.0
#: Share of a training in which SensitiveNets only learns to read groups, and the probability that it then asks for.
_READING, _AIM = 1 / 25, 0.9
#: Learning rate of the network that SensitiveNets reads groups with.
_READER_RATES: Mapping[str, float] = {"sgd": 0.01, "adam": 0.001, "adamw": 0.001}


class Mitigation(nn.Module):
    """The head's own loss; others are built on it.

    Args:
        embedding_size: of the network.
        labels, groups: of all training images (n,).
        num_groups: of the task.

    Attributes:
        lead: by how much an image's own class is ahead of the next in the last epoch, mean of each group (g,), in
            logits; NaN before the first epoch.
    """

    lead: Tensor

    def __init__(self, embedding_size: int, labels: np.ndarray, groups: np.ndarray, num_groups: int):
        super().__init__()
        self.register_buffer("lead", torch.full((num_groups,), math.nan))
        self._sums = torch.zeros(num_groups, 2)

    def changed_labels(self, labels: np.ndarray, groups: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """The labels (b,) that a batch is trained on."""
        return labels

    def forward(self, head: Head, embeddings: Tensor, labels: Tensor, groups: Tensor, share: float) -> Tensor:
        """Mean loss of a batch, a scalar.

        Args:
            head: of the network.
            embeddings: (b, d).
            labels, groups: int64 (b,).
            share: of the training that is done, 0..1.
        """
        return head(embeddings, labels)

    def end_epoch(self, add_up: Callable[[Tensor], Tensor]) -> None:
        """Learn from the epoch; ``add_up`` adds a tensor of all processes that train together."""

    def rate(self, optimizer: str, peak: float) -> float:
        """Learning rate of its own parameters, as a factor of the peak of the others."""
        return 1.0

    @torch.no_grad()
    def _watch(self, head: Head, embeddings: Tensor, labels: Tensor, groups: Tensor) -> None:
        logits = head.logits(embeddings)
        own = logits.gather(1, labels[:, None])
        lead = own[:, 0] - logits.scatter(1, labels[:, None], -math.inf).amax(1)
        rows = torch.stack([lead, torch.ones_like(lead)], dim=1).cpu()
        self._sums.index_add_(0, groups.cpu(), rows)

    def _end_watch(self, add_up: Callable[[Tensor], Tensor]) -> None:
        total, count = add_up(self._sums).T
        self.lead.copy_(total / count)
        self._sums.zero_()


class Flipped(Mitigation):
    """Wrong labels for the group that is ahead, so that it learns less.

    In every batch 30 % of its images get another person of the same group at random. Source: the published scripts,
    after Chang et al. (2020). There the group is men, always; here it is the one that is ahead, so it may change.
    """

    def __init__(self, embedding_size: int, labels: np.ndarray, groups: np.ndarray, num_groups: int):
        super().__init__(embedding_size, labels, groups, num_groups)
        self._classes = [np.unique(labels[groups == group]) for group in range(num_groups)]

    def changed_labels(self, labels: np.ndarray, groups: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """Other labels for some images of the group ahead; none in the first epoch."""
        if not bool(self.lead.isfinite().any()):
            return labels
        ahead = int(self.lead.nan_to_num(-math.inf).argmax())
        classes, members = self._classes[ahead], np.flatnonzero(groups == ahead)
        if len(classes) < 2:
            return labels
        chosen = generator.choice(members, int(_FLIPPED * len(members)), replace=False)
        # Any class of the group but the own one: a step of 1 to n - 1 places round the list.
        places = np.searchsorted(classes, labels[chosen]) + generator.integers(1, len(classes), len(chosen))
        changed = labels.copy()
        changed[chosen] = classes[places % len(classes)]
        return changed

    def forward(self, head: Head, embeddings: Tensor, labels: Tensor, groups: Tensor, share: float) -> Tensor:
        """The head's loss."""
        self._watch(head, embeddings, labels, groups)
        return head(embeddings, labels)

    def end_epoch(self, add_up: Callable[[Tensor], Tensor]) -> None:
        """Which group is ahead now."""
        self._end_watch(add_up)


class Angular(Mitigation):
    """A larger margin for groups that are behind.

    Source: Wang & Deng, CVPR 2020, who learn by Q-learning whether a group's margin grows, shrinks or stays, from how
    far its people lie apart. The published scripts have the margins of both groups as arguments; the values that were
    used are UNKNOWN. Here the margin of a group that is behind the first one grows by a fixed step an epoch, that of
    the group ahead shrinks towards the head's own.
    """

    extra: Tensor

    def __init__(self, embedding_size: int, labels: np.ndarray, groups: np.ndarray, num_groups: int):
        super().__init__(embedding_size, labels, groups, num_groups)
        self.register_buffer("extra", torch.zeros(num_groups))

    def forward(self, head: Head, embeddings: Tensor, labels: Tensor, groups: Tensor, share: float) -> Tensor:
        """The head's loss with the margin of each image's group."""
        self._watch(head, embeddings, labels, groups)
        return head(embeddings, labels, self.extra[groups])

    def end_epoch(self, add_up: Callable[[Tensor], Tensor]) -> None:
        """Move each margin by a step."""
        self._end_watch(add_up)
        ahead = self.lead == self.lead.nan_to_num(-math.inf).max()
        self.extra += torch.where(ahead, -_MARGIN_STEP, _MARGIN_STEP) * self.lead.isfinite()
        self.extra.clamp_(0.0, _MOST_MARGIN)


class _ReversedGradient(torch.autograd.Function):
    """The identity, its gradient multiplied by minus a factor. Source: Ganin & Lempitsky, ICML 2015, section 3.1."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return -ctx.factor * gradients[0], None


class Discriminator(Mitigation):
    """A network learns to read the group from the embedding, and the embedding learns to hide it (gradient reversal).

    Source: Ganin & Lempitsky, ICML 2015, with their schedule of the weight. The scripts that the published code calls
    "discriminator" are SensitiveNets, see below.
    """

    def __init__(self, embedding_size: int, labels: np.ndarray, groups: np.ndarray, num_groups: int):
        super().__init__(embedding_size, labels, groups, num_groups)
        self.reader = _reader(embedding_size, num_groups)

    def forward(self, head: Head, embeddings: Tensor, labels: Tensor, groups: Tensor, share: float) -> Tensor:
        """The head's loss and that of the reader, which the embedding works against."""
        factor = 2 / (1 + math.exp(-_REVERSAL * share)) - 1
        hidden = _ReversedGradient.apply(F.normalize(embeddings), factor)
        return head(embeddings, labels) + F.cross_entropy(self.reader(hidden), groups)


class SensitiveNets(Mitigation):
    """A network behind the embedding removes the group (:func:`removal_network`).

    A reader learns to read the group; whatever is shown, the embedding is to look like one and the same group to it,
    with a probability of .9: log(1 + |.9 - p|) is added to the loss. Source: the published scripts, after Morales et
    al., TPAMI 2020. Which group that is, is fixed to one of two there; here it is the one with most training images.
    """

    def __init__(self, embedding_size: int, labels: np.ndarray, groups: np.ndarray, num_groups: int):
        super().__init__(embedding_size, labels, groups, num_groups)
        self.reader = _reader(embedding_size, num_groups)
        self._shown = int(np.bincount(groups, minlength=num_groups).argmax())

    def forward(self, head: Head, embeddings: Tensor, labels: Tensor, groups: Tensor, share: float) -> Tensor:
        """The head's loss, the reader's, and after a while that of what the reader sees."""
        features = F.normalize(embeddings)
        loss = head(embeddings, labels) + F.cross_entropy(self.reader(features.detach()), groups)
        if share <= _READING:
            return loss
        fixed = {name: parameter.detach() for name, parameter in self.reader.named_parameters()}
        p = functional_call(self.reader, fixed, (features,)).softmax(1)[:, self._shown]
        return loss + torch.log(1 + (_AIM - p).abs()).mean()

    def rate(self, optimizer: str, peak: float) -> float:
        """The reader's published rate, whatever that of the network is."""
        return _READER_RATES[optimizer] / peak


def _reader(embedding_size: int, num_groups: int) -> nn.Module:
    """Embedding (b, d) => logits of its group (b, g): three linear layers, as published."""
    return _layers([embedding_size] * 3 + [num_groups])


def removal_network(embedding_size: int) -> nn.Module:
    """What SensitiveNets puts behind the embedding (b, d) => (b, d): four linear layers, as published."""
    return _layers([embedding_size] * 5)


def _layers(sizes: list[int]) -> nn.Module:
    """Linear layers with ReLU between them."""
    layers = [part for pair in itertools.pairwise(sizes) for part in (nn.Linear(*pair), nn.ReLU())]
    return nn.Sequential(*layers[:-1])


MITIGATIONS: Mapping[str, type[Mitigation]] = {
    NO_MITIGATION: Mitigation,
    "flipped": Flipped,
    "angular": Angular,
    "discriminator": Discriminator,
    "sensitivenets": SensitiveNets,
}


def make_mitigation(
    name: str, embedding_size: int, *, labels: np.ndarray, groups: np.ndarray, num_groups: int
) -> Mitigation:
    """A mitigation by name, for training images of these labels and groups (n,)."""
    return MITIGATIONS[name](embedding_size, labels, groups, num_groups)
