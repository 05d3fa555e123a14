"""What the judges read, in one unit: 0 on the border of a group, 1 where its typical member stands.

Two judges read every attribute: the latent probes, from a semantic code, and CLIP, from a picture. Their raw log-odds
differ in offset and scale from dataset to dataset, so both are calibrated on the dataset's own labelled originals: the
median log-odds of each group become its anchor. A judge that cannot tell the groups apart on these originals is not
used; a linear reading fitted to their labels takes its place, and the report says so. A network of the user's own (an
age or gender classifier) may take CLIP's place: it is calibrated on the same originals, and used if it reads them well.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from scipy.optimize import minimize_scalar

from vlbias.balance.looks import Through
from vlbias.balance.poles import Poles
from vlbias.errors import ConfigError, PlanError, UnknownNameError
from vlbias.networks import FaceNetwork
from vlbias.types import Backend

__all__ = [
    "AttributeJudge",
    "Reading",
    "calibrate",
    "check_labels",
    "fit_reading",
    "network_reading",
    "read",
    "reads_backwards",
    "uncalibrated",
]

# Log-odds that a dipole's poles stand at where no labelled original is there to calibrate on (probability .88).
DEFAULT_ANCHOR = 2.0
MAX_LOG_ODDS = 14.0


@dataclass(frozen=True)
class Reading:
    """One judge's reading of one attribute.

    Attributes:
        kind: ``dipole`` (log-odds of a dipole's positive pole, one number a face) or ``fitted`` (one logit a label); of
            a network of the user's own, ``number`` (one number a face) or ``classes`` (log-probability of each label).
        name: dipole, label column, or the network's name.
        labels: the groups; where there are anchors, in their order.
        anchors: (k,) for a dipole or a number: median of each group, increasing.
        weight, bias: for ``fitted``: logits = features @ weight.T + bias.
        unit: for ``fitted`` and ``classes``: the median margin.
        accuracy: balanced accuracy on labelled originals that were not fitted; ``None`` if there were none.
        slope: log-odds that a labelled original with a margin of 1 belongs to the group, all groups alike; ``None``
            where there were no labels.
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

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Reading:
        values = dict(values)
        for name in ("labels", "anchors", "bias"):
            values[name] = tuple(values[name])
        values["weight"] = tuple(tuple(row) for row in values["weight"])
        return cls(**values)


@dataclass(frozen=True)
class AttributeJudge:
    """Both judges of one attribute; one of them may be blind (``None``).

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

    def to_json(self) -> dict[str, Any]:
        readings = {"latent": self.latent, "image": self.image, "spare": self.spare}
        return {"column": self.column} | {k: v.to_json() if v else None for k, v in readings.items()}

    @classmethod
    def from_json(cls, values: dict[str, Any], network: FaceNetwork | None = None) -> AttributeJudge:
        readings = {k: Reading.from_json(values[k]) if values[k] else None for k in ("latent", "image", "spare")}
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
        instead = "CLIP judged in its place" if self.image is not None else "no judge of pictures took its place"
        why = "cannot tell the groups apart at all"
        if self.spare is not None and self.spare.accuracy is not None:
            why = f"reads only {self.spare.accuracy:.0%} of the faces it was tried on right, too few for `min_skill`"
        return [f"the judge {self.network.name} of '{self.column}' {why}; {instead}."]

    def with_network(self, network: FaceNetwork, reading: Reading | None, *, min_skill: float) -> AttributeJudge:
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
    """Raw log-odds, logits or numbers of one judge.

    Args:
        backend: the judges.
        reading: what to read.
        where: ``latent`` for semantic codes (b, d), ``image`` for pictures (b, 3, h, w).
        tensor: the codes or pictures.
        network: of the user's own, for a reading that is its.
    """
    if reading.is_of_network:
        assert network is not None  # a judge carries the network whose reading it has
        return _network_raw(network, tensor, backend.layout)
    if reading.kind == "dipole":
        probability = backend.probe(tensor, reading.name) if where == "latent" else backend.score(tensor, reading.name)
        return torch.logit(probability.double().cpu(), eps=1e-6).clamp(-MAX_LOG_ODDS, MAX_LOG_ODDS)
    features = _features(backend, where, tensor)
    weight = torch.tensor(reading.weight, dtype=torch.float64)
    return features @ weight.T + torch.tensor(reading.bias, dtype=torch.float64)


def _network_raw(network: FaceNetwork, x: torch.Tensor, layout: str) -> torch.Tensor:
    """Numbers (b,), or log-probabilities (b, k) of a network's labels."""
    if network.output.kind == "number":
        return network.numbers(x, layout=layout)
    # like log-odds elsewhere: a network that is sure beyond measure must not make the median margin infinite
    return network.probabilities(x, layout=layout).clamp_min(math.exp(-MAX_LOG_ODDS)).log()


def network_reading(
    network: FaceNetwork, through: Through, labels: Sequence[str], layout: str, *, column: str
) -> Reading | None:
    """Calibrate a network of the user's own on labelled originals.

    Args:
        network: tells classes or a number.
        through: runs a function over the originals' pictures.
        labels: their n labels.
        layout: how faces lie in them.
        column: whose labels they are, for messages.

    Returns:
        The reading with its balanced accuracy; ``None`` where it cannot tell the groups apart at all.

    Raises:
        ConfigError: its classes are not the column's labels.
        PlanError: it gives NaN for originals.
    """
    names = sorted(set(labels))
    check_labels(network, names, column)
    raw = through(network.input.picture_size(layout), lambda x: _network_raw(network, x, layout))
    unread = int((~torch.isfinite(raw).reshape(len(raw), -1).all(dim=1)).sum())
    if unread:
        raise PlanError(
            f"`scorers`: {network.name} gives NaN for {unread} of {len(raw)} originals. Check its mean, std, range and "
            "channels."
        )
    if network.output.kind == "classes":
        reading = Reading("classes", network.name, network.output.labels)
        margins = reading.margin(raw, labels)
        unit = float(margins[margins > 0].median()) if bool((margins > 0).any()) else 1.0
        return _measured(replace(reading, unit=max(unit, 1e-6)), raw, labels)
    medians = {name: float(raw[[i for i, label in enumerate(labels) if label == name]].median()) for name in names}
    ordered = sorted(names, key=lambda name: medians[name])
    anchors = [medians[name] for name in ordered]
    if len(names) < 2 or any(b - a < 1e-6 for a, b in zip(anchors, anchors[1:], strict=False)):
        return None
    return _measured(Reading("number", network.name, tuple(ordered), tuple(anchors)), raw, labels)


def check_labels(network: FaceNetwork, labels: Sequence[str], column: str) -> None:
    """Refuse a classifier that does not know a label of its column.

    Raises:
        ConfigError: names both.
    """
    known = network.output.labels
    missing = [label for label in labels if label not in known]
    if network.output.kind == "classes" and missing:
        raise ConfigError(
            f"`scorers`: {network.name} tells {', '.join(known)}; '{column}' has {', '.join(labels)}. Write the "
            f"column's own words for `classes`: '{missing[0]}' is missing."
        )


def _features(backend: Backend, where: str, tensor: torch.Tensor) -> torch.Tensor:
    """What a fitted reading sees: normalised codes, or CLIP image features; float64 (b, e)."""
    return (backend.normalize(tensor) if where == "latent" else backend.features(tensor)).double().cpu()


def uncalibrated(column: str, poles: Poles) -> AttributeJudge:
    """Judges of a dipole where there is no labelled face: its own zero is the border."""
    anchors = tuple(DEFAULT_ANCHOR * poles.positions[label] for label in poles.ordered)
    reading = Reading("dipole", poles.name, tuple(poles.ordered), anchors)
    return AttributeJudge(column, reading, reading)


def calibrate(
    backend: Backend,
    column: str,
    z_sem: torch.Tensor,
    x_0: torch.Tensor,
    labels: Sequence[str],
    cells: Sequence[str],
    *,
    poles: Poles | None,
    min_skill: float,
) -> AttributeJudge:
    """Calibrate both judges of one attribute on labelled originals.

    Args:
        backend: the judges.
        column: label column.
        z_sem: codes (n, d) of the originals.
        x_0: the originals (n, 3, h, w).
        labels: n labels of ``column``.
        cells: n cell names (class x group): each cell weighs the same in a fit.
        poles: the dipole that reads the column, or ``None``.
        min_skill: a judge below it (1 = never wrong, 0 = chance) is not used.
    """
    chosen: dict[str, Reading | None] = {}
    for where, tensor in (("latent", z_sem), ("image", x_0)):
        options = []
        if poles is not None:
            options.append(_dipole_reading(backend, where, tensor, labels, poles))
        usable = [reading for reading in options if reading is not None and reading.skill() >= min_skill]
        if not usable and (where == "latent" or backend.can_read_pictures):
            fitted = fit_reading(column, _features(backend, where, tensor), labels, cells)
            usable = [fitted] if fitted is not None and fitted.skill() >= min_skill else []
        chosen[where] = usable[0] if usable else None
    return AttributeJudge(column, chosen["latent"], chosen["image"])


def reads_backwards(
    backend: Backend,
    judge: AttributeJudge,
    z_sem: torch.Tensor,
    x_0: torch.Tensor,
    labels: Sequence[str],
    *,
    poles: Poles,
    min_skill: float,
) -> bool:
    """Whether the dipole reads these originals well once its poles are swapped, and not as they are given.

    Walks would then lead away from every group. The arguments are those of :func:`calibrate`, which made ``judge``.
    """
    if any(reading is not None and reading.kind == "dipole" for reading in (judge.latent, judge.image)):
        return False
    if len(set(labels)) < 2:
        return False
    turned = replace(poles, positions={value: -place for value, place in poles.positions.items()})
    pairs = (("latent", z_sem), ("image", x_0))
    readings = [_dipole_reading(backend, where, tensor, labels, turned) for where, tensor in pairs]
    return any(reading is not None and reading.skill() >= min_skill for reading in readings)


def _dipole_reading(
    backend: Backend, where: str, tensor: torch.Tensor, labels: Sequence[str], poles: Poles
) -> Reading | None:
    present = [label for label in poles.ordered if label in set(labels)]
    if len(present) < len(poles.ordered):
        # a group without one original has no anchor of its own
        reading = uncalibrated(poles.column, poles).latent
        assert reading is not None
    else:
        reading = Reading("dipole", poles.name, tuple(poles.ordered), tuple(range(len(present))))
    if where == "image" and not backend.can_read_pictures:
        return None
    try:
        raw = read(backend, reading, where, tensor)
    except UnknownNameError:
        return None  # a path without a probe of its own
    if len(present) == len(poles.ordered):
        which = torch.tensor([poles.ordered.index(label) for label in labels])
        anchors = [float(raw[which == index].median()) for index in range(len(present))]
        if any(b - a < 1e-3 for a, b in zip(anchors, anchors[1:], strict=False)):
            return None
        reading = Reading("dipole", poles.name, tuple(poles.ordered), tuple(anchors))
    return _measured(reading, raw, labels)


def _measured(reading: Reading, raw: torch.Tensor, labels: Sequence[str]) -> Reading:
    """The reading with its balanced accuracy on labelled faces."""
    inside = reading.margin(raw, labels) > 0
    names = sorted(set(labels))
    rates = [float(inside[[i for i, label in enumerate(labels) if label == name]].double().mean()) for name in names]
    slope = _slope(reading, raw, labels)
    return replace(reading, accuracy=round(sum(rates) / len(rates), 4), slope=slope)


def _slope(reading: Reading, raw: torch.Tensor, labels: Sequence[str]) -> float:
    """Logistic regression of "belongs to the group" on the margin in it, through the border, groups weighing alike."""
    margins, weights = [], []
    for name in sorted(set(labels)):
        own = torch.tensor([label == name for label in labels])
        margin = reading.margin(raw, [name] * len(labels))
        # the others' margins count as negative evidence of the same kind
        margins.append(torch.where(own, margin, -margin))
        weights.append(torch.where(own, 0.5 / own.sum(), 0.5 / (~own).sum().clamp_min(1)).double())
    margin, weight = torch.cat(margins), torch.cat(weights)

    def loss(slope: float) -> float:
        # a weak pull towards 2 keeps a perfect separation of few faces from being certain of everything
        return float((weight * F.softplus(-slope * margin)).sum() + 0.01 * math.log(slope / 2) ** 2)

    return round(float(minimize_scalar(loss, bounds=(0.2, 20.0), method="bounded").x), 4)


def fit_reading(
    column: str, features: torch.Tensor, labels: Sequence[str], cells: Sequence[str], *, ridge: float = 0.3
) -> Reading | None:
    """Fit a linear reading to labels: ridge regression on one-hot labels in which each cell weighs the same.

    A target that goes with a protected group would otherwise be read from the group. Every third face is kept aside
    to measure the accuracy.

    Args:
        column: label column, for the name.
        features: float64 (n, e).
        labels, cells: n labels and n cell names.
        ridge: added to the diagonal of the features' correlation matrix.

    Returns:
        The reading, or ``None`` where there are too few faces (under 3 of a label).
    """
    names = sorted(set(labels))
    if len(names) < 2 or min(list(labels).count(name) for name in names) < 3:
        return None
    y = torch.tensor([names.index(label) for label in labels])
    held = torch.zeros(len(y), dtype=torch.bool)
    for index in range(len(names)):
        held[torch.nonzero(y == index)[2::3, 0]] = True
    fitted = [cell for cell, out in zip(cells, held.tolist(), strict=True) if not out]
    weights = torch.tensor([1 / fitted.count(cell) for cell in fitted], dtype=torch.float64)
    weights = (weights / weights.sum())[:, None]
    x = features[~held]
    mean, std = (weights * x).sum(0), x.std(0).clamp_min(1e-6)
    x = (x - mean) / std
    one_hot = F.one_hot(y[~held], len(names)).double()
    offset = (weights * one_hot).sum(0)
    gram = x.T @ (weights * x) + ridge * torch.eye(x.shape[1], dtype=torch.float64)
    slopes = torch.linalg.solve(gram, x.T @ (weights * (one_hot - offset))).T
    weight = slopes / std
    bias = offset - weight @ mean
    reading = Reading(
        "fitted", column, tuple(names), weight=tuple(map(tuple, weight.tolist())), bias=tuple(bias.tolist())
    )
    raw = (features @ weight.T + bias)[held]
    kept_aside = [names[index] for index in y[held].tolist()]
    margins = reading.margin(raw, kept_aside)
    unit = float(margins[margins > 0].median()) if bool((margins > 0).any()) else 1.0
    return _measured(replace(reading, unit=max(unit, 1e-6)), raw, kept_aside)
