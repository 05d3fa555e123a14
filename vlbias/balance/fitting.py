"""Fitting readings to labelled originals: where the groups' borders lie, and how well each scorer tells them apart."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from scipy.optimize import minimize_scalar

from vlbias.balance.poles import Poles
from vlbias.balance.scoring import MEMBER_SHARES, AttributeScorer, Reading, features_of, network_raw, read
from vlbias.data import FaceDataset
from vlbias.errors import ConfigError, PlanError, UnknownNameError
from vlbias.images import to_tensor
from vlbias.networks import FaceNetwork
from vlbias.types import Backend

__all__ = [
    "Through",
    "calibrate",
    "check_labels",
    "fit_reading",
    "network_reading",
    "reads_backwards",
    "through_faces",
    "through_tensor",
    "uncalibrated",
    "with_members",
]

# Log-odds that a dipole's poles stand at where no labelled original is there to calibrate on (probability .88).
DEFAULT_ANCHOR = 2.0
# Fewer members of a group than this do not say how far inside of it faces stand.
LEAST_MEMBERS = 10

#: (edge in pixels or ``None`` for the editor's, function of pictures) => its answers for all faces at hand, (n, ...).
Through = Callable[[int | None, Callable[[torch.Tensor], torch.Tensor]], torch.Tensor]


def _in_batches(function: Callable[..., torch.Tensor], size: int, *tensors: torch.Tensor) -> torch.Tensor:
    """Apply a function to aligned tensors in batches of ``size`` rows, without gradients."""
    with torch.no_grad():
        starts = range(0, len(tensors[0]), size)
        return torch.cat([function(*(tensor[start : start + size] for tensor in tensors)) for start in starts])


def through_faces(faces: FaceDataset, ids: Sequence[str], x_0: torch.Tensor, batch_size: int) -> Through:
    """Over faces of a dataset, opened anew for each size, a few at a time.

    Args:
        faces: the dataset.
        ids: n items that can be read.
        x_0: the same at the editor's size (n, 3, h, w).
        batch_size: pictures that are open together.
    """

    def run(size: int | None, function: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        if size is None:
            return _in_batches(function, batch_size, x_0)
        starts = range(0, len(ids), batch_size)
        parts = (ids[start : start + batch_size] for start in starts)
        return torch.cat([function(torch.cat([to_tensor(faces.image(item), size) for item in part])) for part in parts])

    return run


def through_tensor(x_0: torch.Tensor, batch_size: int) -> Through:
    """Over pictures that have no larger original (n, 3, h, w)."""
    return lambda size, function: _in_batches(function, batch_size, x_0)


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
    raw = through(network.input.picture_size(layout), lambda x: network_raw(network, x, layout))
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
    if len(names) < 2 or any(b - a < 1e-6 for a, b in itertools.pairwise(anchors)):
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


def uncalibrated(column: str, poles: Poles) -> AttributeScorer:
    """Scorers of a dipole where there is no labelled face: its own zero is the border."""
    anchors = tuple(DEFAULT_ANCHOR * poles.positions[label] for label in poles.ordered)
    reading = Reading("dipole", poles.name, tuple(poles.ordered), anchors)
    return AttributeScorer(column, reading, reading)


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
) -> AttributeScorer:
    """Calibrate both scorers of one attribute on labelled originals.

    Args:
        backend: the scorers.
        column: label column.
        z_sem: codes (n, d) of the originals.
        x_0: the originals (n, 3, h, w).
        labels: n labels of ``column``.
        cells: n cell names (class x group): each cell weighs the same in a fit.
        poles: the dipole that reads the column, or ``None``.
        min_skill: a scorer below it (1 = never wrong, 0 = chance) is not used.
    """
    chosen: dict[str, Reading | None] = {}
    for where, tensor in (("latent", z_sem), ("image", x_0)):
        options = []
        if poles is not None:
            options.append(_dipole_reading(backend, where, tensor, labels, poles))
        usable = [reading for reading in options if reading is not None and reading.skill() >= min_skill]
        if not usable and (where == "latent" or backend.can_read_pictures):
            fitted = fit_reading(column, features_of(backend, where, tensor), labels, cells)
            usable = [fitted] if fitted is not None and fitted.skill() >= min_skill else []
        chosen[where] = usable[0] if usable else None
    return AttributeScorer(column, chosen["latent"], chosen["image"])


def reads_backwards(
    backend: Backend,
    scorer: AttributeScorer,
    z_sem: torch.Tensor,
    x_0: torch.Tensor,
    labels: Sequence[str],
    *,
    poles: Poles,
    min_skill: float,
) -> bool:
    """Whether the dipole reads these originals well once its poles are swapped, and not as they are given.

    Walks would then lead away from every group. The arguments are those of :func:`calibrate`, which made ``scorer``.
    """
    if any(reading is not None and reading.kind == "dipole" for reading in (scorer.latent, scorer.image)):
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
        if any(b - a < 1e-3 for a, b in itertools.pairwise(anchors)):
            return None
        reading = Reading("dipole", poles.name, tuple(poles.ordered), tuple(anchors))
    return _measured(reading, raw, labels)


def _measured(reading: Reading, raw: torch.Tensor, labels: Sequence[str]) -> Reading:
    """The reading with its balanced accuracy on labelled faces."""
    inside = reading.margin(raw, labels) > 0
    names = sorted(set(labels))
    rates = [float(inside[[i for i, label in enumerate(labels) if label == name]].double().mean()) for name in names]
    slope = _slope(reading, raw, labels)
    return replace(with_members(reading, raw, labels), accuracy=round(sum(rates) / len(rates), 4), slope=slope)


def with_members(reading: Reading, raw: torch.Tensor, labels: Sequence[str]) -> Reading:
    """The reading with how far inside their groups faces stand.

    A group between two others on a scale has no such members: a walk enters it from one side, and stops in its middle.

    Args:
        reading: with its anchors.
        raw: what it reads of n faces.
        labels: their groups (n,).
    """
    shares = torch.tensor(MEMBER_SHARES, dtype=torch.float64)
    members: list[tuple[float, ...]] = []
    for place, label in enumerate(reading.labels):
        own = torch.tensor([one == label for one in labels])
        between = bool(reading.anchors) and 0 < place < len(reading.labels) - 1
        known = not between and int(own.sum()) >= LEAST_MEMBERS
        margins = reading.margin(raw[own], [label] * int(own.sum())) if known else None
        members.append(() if margins is None else tuple(round(float(one), 4) for one in margins.quantile(shares)))
    return replace(reading, members=tuple(members))


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
