"""What the scorers read, in one unit: 0 on the border of a group, 1 where its typical member stands.

Two scorers read every attribute: the latent probes, from a semantic code, and CLIP, from a picture. Their raw log-odds
differ in offset and scale from dataset to dataset, so both are calibrated on the dataset's own labelled originals: the
median log-odds of each group become its anchor. A scorer that cannot tell the groups apart on these originals is not
used; a linear reading fitted to their labels takes its place, and the report says so. A network of the user's own (an
age or gender classifier) may take CLIP's place: it is calibrated on the same originals, and used if it reads them well.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np
import torch

from vlbias.networks import FaceNetwork
from vlbias.types import Backend

__all__ = [
    "AttributeScorer",
    "Look",
    "Margins",
    "Pair",
    "Reading",
    "Seen",
    "features_of",
    "network_raw",
    "read",
]

# As far as probabilities in float32 tell them apart, on both sides.
MAX_LOG_ODDS, LEAST_PROBABILITY = 16.5, 2.0**-24
#: Shares of a group's members at which it is noted how far inside they stand.
MEMBER_SHARES = tuple(share / 100 for share in range(5, 100, 10))


#: Edge in pixels => the faces at hand at that size, (b, 3, size, size) in [-1, 1].
Look = Callable[[int], torch.Tensor]

#: (latent, image) margins of one face; ``None`` where a scorer is blind.
Pair: TypeAlias = tuple[float | None, float | None]


@dataclass(frozen=True)
class Seen:
    """A batch of faces as scorers see it.

    Attributes:
        backend: reads codes and pictures.
        z_sem: semantic codes (b, d); ``None`` where codes are not to be read.
        x_0: pictures (b, 3, h, w) at the editor's size; ``None`` where there are none yet.
        look: the same pictures at other sizes, for a network that wants them; ``None`` where there are no larger ones.
    """

    backend: Backend
    z_sem: torch.Tensor | None = None
    x_0: torch.Tensor | None = None
    look: Look | None = None


@dataclass(frozen=True)
class Margins:
    """Margins of a batch of faces, (b,) each; ``None`` where a scorer is blind."""

    latent: torch.Tensor | None
    image: torch.Tensor | None

    def at(self, index: int) -> Pair:
        """(latent, image) of one face."""
        latent, image = (None if margin is None else float(margin[index]) for margin in (self.latent, self.image))
        return latent, image


@dataclass(frozen=True)
class Reading:
    """One scorer's reading of one attribute.

    Attributes:
        kind: ``dipole`` (log-odds of a dipole's positive pole, one number per face) or ``fitted`` (one logit per
            label); of a network of the user's own, ``number`` (one number per face) or ``classes`` (log-probability of
            each label).
        name: dipole, label column, or the network's name.
        labels: the groups; where there are anchors, in their order.
        anchors: (k,) for a dipole or a number: median of each group, increasing.
        weight, bias: for ``fitted``: logits = features @ weight.T + bias.
        unit: for ``fitted`` and ``classes``: the median margin.
        accuracy: balanced accuracy on labelled originals that were not fitted; ``None`` if there were none.
        slope: log-odds that a labelled original with a margin of 1 belongs to the group, all groups alike; ``None``
            where there were no labels.
        members: for each label the margins of its originals at :data:`MEMBER_SHARES`; empty where too few are known.
    """

    kind: str
    name: str
    labels: tuple[str, ...]
    anchors: tuple[float, ...] = ()
    weight: tuple[tuple[float, ...], ...] = ()
    bias: tuple[float, ...] = ()
    unit: float = 1.0
    accuracy: float | None = None
    slope: float | None = None
    members: tuple[tuple[float, ...], ...] = ()

    def member_margin(self, label: str, share: float) -> float:
        """How far inside its group that member stands which is further inside than a ``share`` (0..1) of the others.

        1, the typical member's, where nobody was measured.
        """
        margins = self.members[self.labels.index(label)] if self.members else ()
        return float(np.interp(share, MEMBER_SHARES, margins)) if margins else 1.0

    def sure_margin(self, share: float) -> float | None:
        """The margin from which on such a share of the originals that read so belong to the group.

        At least 0.25 and at most 0.8, for few originals say little about either end; ``None`` without labels.
        """
        if self.slope is None:
            return None
        return min(max(math.log(share / (1 - share)) / self.slope, 0.25), 0.8)

    def margin(self, raw: torch.Tensor, wanted: Sequence[str]) -> torch.Tensor:
        """How far inside its wanted group each face reads: 1 = like the typical member, 0 = on the border, < 0 outside.

        Args:
            raw: (b,) for a dipole or a number, (b, k) logits for a fitted reading or classes.
            wanted: b labels.
        """
        index = torch.tensor([self.labels.index(label) for label in wanted], dtype=torch.long)
        raw = raw.detach().double().cpu()
        if self.kind in ("fitted", "classes"):
            own = raw.gather(1, index[:, None])[:, 0]
            others = raw.scatter(1, index[:, None], float("-inf")).max(dim=1).values
            return (own - others) / self.unit
        anchors = torch.tensor(self.anchors, dtype=torch.float64)
        borders = (anchors[1:] + anchors[:-1]) / 2
        below = torch.cat([torch.tensor([float("-inf")], dtype=torch.float64), borders])[index]
        above = torch.cat([borders, torch.tensor([float("inf")], dtype=torch.float64)])[index]
        at = anchors[index]
        # an end group has one border only; its other side is open
        left = torch.where(below.isinf(), torch.full_like(raw, float("inf")), (raw - below) / (at - below))
        right = torch.where(above.isinf(), torch.full_like(raw, float("inf")), (above - raw) / (above - at))
        return torch.minimum(left, right)

    def skill(self) -> float:
        """Balanced accuracy rescaled: 1 = never wrong, 0 = chance; 1 where nothing was measured."""
        chance = 1 / len(self.labels)
        return 1.0 if self.accuracy is None else (self.accuracy - chance) / (1 - chance)

    @property
    def is_of_network(self) -> bool:
        """Whether a network of the user's own is read, not the editor's probes or CLIP."""
        return self.kind in ("number", "classes")

    def summary(self) -> dict[str, Any]:
        """For the report: who reads, and how well."""
        own = {"name": self.name} if self.is_of_network else {}
        return {"kind": self.kind, **own, "balanced_accuracy": self.accuracy}

    def to_dict(self) -> dict[str, Any]:
        """Plain values for the run folder."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Reading:
        """What :meth:`to_dict` gave, again."""
        values = dict(values)
        for name in ("labels", "anchors", "bias"):
            values[name] = tuple(values[name])
        values["weight"] = tuple(tuple(row) for row in values["weight"])
        members = tuple(tuple(map(float, row)) for row in values.get("members", ()))
        if len(members) not in (0, len(values["labels"])) or {len(row) for row in members} - {0, len(MEMBER_SHARES)}:
            raise ValueError(f"`members` must hold {len(MEMBER_SHARES)} numbers or none for each label.")
        values["members"] = members
        return cls(**values)


@dataclass(frozen=True)
class AttributeScorer:
    """Both scorers of one attribute; one of them may be blind (``None``).

    Attributes:
        column: the attribute.
        latent: reads codes.
        image: reads pictures: CLIP, or the user's network.
        spare: the other one of these two, which is not asked; ``None`` without a network, or where it was blind.
        network: the user's network; ``None`` without one.
    """

    column: str
    latent: Reading | None
    image: Reading | None
    spare: Reading | None = None
    network: FaceNetwork | None = field(default=None, compare=False)

    def margins(self, seen: Seen, wanted: Sequence[str]) -> Margins:
        """Margins of faces in their wanted groups (b labels), of their codes and of their pictures."""
        latent = image = None
        if self.latent is not None and seen.z_sem is not None:
            latent = self.latent.margin(read(seen.backend, self.latent, "latent", seen.z_sem), wanted)
        if self.image is not None and seen.x_0 is not None:
            x = seen.x_0
            if self.network is not None and self.image.is_of_network and seen.look is not None:
                x = seen.look(self.network.input.picture_size(seen.backend.layout))
            image = self.image.margin(read(seen.backend, self.image, "image", x, network=self.network), wanted)
        return Margins(latent, image)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for the run folder."""
        readings = {"latent": self.latent, "image": self.image, "spare": self.spare}
        return {"column": self.column} | {k: v.to_dict() if v else None for k, v in readings.items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any], network: FaceNetwork | None = None) -> AttributeScorer:
        """What :meth:`to_dict` gave, again, with the network of an own scorer."""
        readings = {k: Reading.from_dict(values[k]) if values[k] else None for k in ("latent", "image", "spare")}
        return cls(values["column"], **readings, network=network)

    def summary(self) -> dict[str, Any]:
        """For the report: who reads the attribute, and how well; ``not_asked`` where the user gave a network."""
        readings = {"latent": self.latent, "image": self.image}
        if self.network is not None:
            readings["not_asked"] = self.spare
        return {name: reading.summary() if reading else None for name, reading in readings.items()}

    def warnings(self) -> list[str]:
        """Says so where the user's network is not asked."""
        if self.network is None or (self.image is not None and self.image.is_of_network):
            return []
        instead = "CLIP reads it in its place" if self.image is not None else "no scorer of pictures took its place"
        why = "cannot tell the groups apart at all"
        if self.spare is not None and self.spare.accuracy is not None:
            why = f"reads only {self.spare.accuracy:.0%} of the faces it was tried on right, too few for `min_skill`"
        return [f"the scorer {self.network.name} of '{self.column}' {why}; {instead}."]

    def with_network(self, network: FaceNetwork, reading: Reading | None, *, min_skill: float) -> AttributeScorer:
        """The same with a network of the user's own in CLIP's place, if it is skilled enough.

        Args:
            network: that was calibrated.
            reading: what came of it, see :func:`network_reading`.
            min_skill: least skill, see ``Checks``.
        """
        if reading is not None and reading.skill() >= min_skill:
            return replace(self, image=reading, spare=self.image, network=network)
        return replace(self, spare=reading, network=network)


def read(
    backend: Backend, reading: Reading, where: str, tensor: torch.Tensor, *, network: FaceNetwork | None = None
) -> torch.Tensor:
    """Raw log-odds, logits or numbers of one scorer.

    Args:
        backend: the scorers.
        reading: what to read.
        where: ``latent`` for semantic codes (b, d), ``image`` for pictures (b, 3, h, w).
        tensor: the codes or pictures.
        network: of the user's own, for a reading that is its.
    """
    if reading.is_of_network:
        assert network is not None  # a scorer carries the network whose reading it has
        return network_raw(network, tensor, backend.layout)
    if reading.kind == "fitted":
        weight = torch.tensor(reading.weight, dtype=torch.float64)
        return features_of(backend, where, tensor) @ weight.T + torch.tensor(reading.bias, dtype=torch.float64)
    probability = backend.score(tensor, reading.name) if where == "image" else backend.probe(tensor, reading.name)
    return torch.logit(probability.double().cpu(), eps=LEAST_PROBABILITY)


def network_raw(network: FaceNetwork, x: torch.Tensor, layout: str) -> torch.Tensor:
    """Numbers (b,), or log-probabilities (b, k) of a network's labels."""
    if network.output.kind == "number":
        return network.numbers(x, layout=layout)
    # like log-odds elsewhere: a network that is sure beyond measure must not make the median margin infinite
    return network.probabilities(x, layout=layout).clamp_min(math.exp(-MAX_LOG_ODDS)).log()


def features_of(backend: Backend, where: str, tensor: torch.Tensor) -> torch.Tensor:
    """What a fitted reading sees: normalised codes, or CLIP image features; float64 (b, e)."""
    return (backend.normalize(tensor) if where == "latent" else backend.features(tensor)).double().cpu()
