"""The scorers of one run, calibrated on its dataset before the first edit, and the same for every shard."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from vlbias.balance.fitting import (
    calibrate,
    network_reading,
    reads_backwards,
    through_faces,
    through_tensor,
    uncalibrated,
    with_members,
)
from vlbias.balance.identity import IdentityScale, LatentIdentity, fit_scale
from vlbias.balance.poles import Poles, turned_round
from vlbias.balance.scoring import AttributeScorer, Reading, read
from vlbias.balance.task import Task
from vlbias.data import FaceDataset
from vlbias.data.origins import are_copies
from vlbias.errors import ImageError, OutputError, PlanError
from vlbias.images import to_tensor
from vlbias.labels import group_name, label_text
from vlbias.networks import FaceNetwork
from vlbias.seeds import item_seed
from vlbias.types import Backend

__all__ = ["Scorers", "calibrated_scorers"]

#: Originals of each cell (class x group) that the scorers are calibrated on.
CALIBRATION_FACES = 48
#: Without a dataset: codes from the prior that the latent readings are calibrated on, and faces of them for CLIP.
SAMPLED_CODES, SAMPLED_FACES = 512, 32


@dataclass(frozen=True)
class Scorers:
    """The scorers of a run.

    Attributes:
        attributes: of the target (first) and of the protected attributes.
        identity: what the scorer of identity makes of originals; ``None`` where there is nothing to read.
        unet_evaluations: that calibration took.
    """

    attributes: list[AttributeScorer]
    identity: IdentityScale | None
    unet_evaluations: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Plain values for the run folder, so that every shard scores alike."""
        identity = self.identity.to_dict() if self.identity is not None else None
        attributes = [scorer.to_dict() for scorer in self.attributes]
        return {"attributes": attributes, "identity": identity, "unet_evaluations": self.unet_evaluations}

    @classmethod
    def from_dict(cls, values: dict[str, Any], networks: Mapping[str, FaceNetwork]) -> Scorers:
        """What :meth:`to_dict` gave, with the networks that it does not hold.

        Raises:
            OutputError: it is something else.
        """
        try:
            stored = values["attributes"]
            attributes = [AttributeScorer.from_dict(scorer, networks.get(scorer["column"])) for scorer in stored]
            return cls(attributes, IdentityScale.from_dict(values["identity"]), int(values["unet_evaluations"]))
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            raise OutputError(f"stored scorers are damaged ({type(error).__name__}: {error!s:.200}).") from error


def calibrated_scorers(task: Task) -> Scorers:
    """Scorers fitted to labelled originals; without a dataset, to faces from the prior.

    Raises:
        PlanError: an attribute that no scorer can read here, or only with the poles swapped, no readable picture, or a
            network that gives NaN.
        ConfigError: a network's classes are not the labels of its column.
    """
    return _sampled(task) if task.faces is None else _from_originals(task, task.faces)


def _sampled(task: Task) -> Scorers:
    """Scorers where there is no labelled face: calibrated on faces from the prior, each named by its latent probe."""
    backend, poles = task.backend, task.poles
    assert task.target_poles is not None  # a plan without a dataset needs a known target
    before = backend.evaluations
    z_sem = backend.sample_codes(range(SAMPLED_CODES))
    few, x_T = z_sem[:SAMPLED_FACES], backend.noise(range(SAMPLED_FACES))
    x_0 = backend.decode(few, x_T, num_steps=task.settings.prior_steps)
    scorers = []
    for pole in (task.target_poles, *poles):
        plain = uncalibrated(pole.column, pole)
        assert plain.latent is not None and plain.image is not None
        raw = read(backend, plain.latent, "latent", z_sem)
        # the border of the latent reading stays at even odds: how the prior is mixed says nothing about it
        half = (raw[raw > 0].median() - raw[raw < 0].median()) / 2 if 0 < int((raw > 0).sum()) < len(raw) else None
        latent = plain.latent
        if half is not None:
            sides = [pole.ordered[-1 if value > 0 else 0] for value in raw.tolist()]
            latent = with_members(_laid_out(latent, pole, 0.0, float(half)), raw, sides)
        seen = raw[: len(x_0)]
        image = _sampled_clip(backend, plain.image, pole, x_0, seen) if backend.can_read_pictures else None
        scorer = AttributeScorer(pole.column, latent, image)
        if (network := task.scorers.get(pole.column)) is not None:
            reading = _sampled_network(network, pole, x_0, seen, backend.layout)
            scorer = scorer.with_network(network, reading, min_skill=task.settings.checks.min_skill)
            # measured against the probes' own words, which is no accuracy
            scorer = replace(scorer, image=scorer.image and replace(scorer.image, accuracy=None))
        scorers.append(scorer)
    labels = [[str(bool(value)) for value in backend.probe(z_sem, pole.name) > 0.5] for pole in poles]
    latent_identity = LatentIdentity.fit(backend.normalize(z_sem), labels)
    cells = ["/".join(words) for words in zip(*(column[: len(x_0)] for column in labels), strict=True)]
    order = sorted(range(len(x_0)), key=lambda index: cells[index])
    through, cells = through_tensor(x_0[order], backend.batch_size), sorted(cells)
    scale = fit_scale(backend, task.identity, latent_identity, through, cells, least=task.settings.checks.identity)
    return Scorers(scorers, scale, backend.evaluations - before)


def _sampled_clip(backend: Backend, plain: Reading, pole: Poles, x_0: torch.Tensor, raw: torch.Tensor) -> Reading:
    seen = read(backend, plain, "image", x_0)
    old, new = seen[raw < 0], seen[raw > 0]
    if min(len(old), len(new)) < 4 or not float(new.median() - old.median()) > 1e-3:
        return plain
    middle = float(new.median() + old.median()) / 2
    return _laid_out(plain, pole, middle, float(new.median()) - middle)


def _sampled_network(
    network: FaceNetwork, pole: Poles, x_0: torch.Tensor, raw: torch.Tensor, layout: str
) -> Reading | None:
    labels = [pole.ordered[-1 if value > 0 else 0] for value in raw.tolist()]
    reading = network_reading(network, through_tensor(x_0, len(x_0)), labels, layout, column=pole.column)
    return None if reading is None else _filled(reading, pole)


def _filled(reading: Reading, pole: Poles) -> Reading:
    """A number's reading with anchors also for groups that no face was there of, on a line through those known."""
    missing = [label for label in pole.ordered if label not in reading.labels]
    if reading.kind != "number" or not missing:
        return reading
    anchors = dict(zip(reading.labels, reading.anchors, strict=True))
    slope, start = np.polyfit([pole.positions[label] for label in anchors], list(anchors.values()), 1)
    anchors |= {label: float(slope * pole.positions[label] + start) for label in missing}
    ordered = sorted(anchors, key=lambda label: anchors[label])
    return replace(reading, labels=tuple(ordered), anchors=tuple(anchors[label] for label in ordered))


def _laid_out(reading: Reading, pole: Poles, middle: float, half: float) -> Reading:
    """The reading with its anchors laid out around ``middle`` as the values lie on the dipole."""
    return replace(reading, anchors=tuple(middle + half * pole.positions[label] for label in pole.ordered))


def _from_originals(task: Task, faces: FaceDataset) -> Scorers:
    """Scorers calibrated on labelled originals, as many from each cell."""
    backend, poles, columns = task.backend, task.poles, task.columns
    table = faces.table[faces.table["split"].isin(list(task.settings.splits)) & ~are_copies(faces.table)]
    labels = [[label_text(value) for value in table[column]] for column in columns]
    of_item: dict[str, list[str]] = {}
    for item, klass, *groups in zip(table.index, *labels, strict=True):
        placed = all(group in pole.positions for group, pole in zip(groups, poles, strict=True))
        if klass is not None and placed:
            of_item[str(item)] = [klass, *(str(group) for group in groups)]
    cells = [(item, (values[0], group_name(values[1:]))) for item, values in of_item.items()]
    ids = _drawn_ids(cells, CALIBRATION_FACES, task.seed)
    x_faces: dict[str, torch.Tensor] = {}
    failures = []
    faces.expect(ids)
    for item in ids:
        try:
            x_faces[item] = to_tensor(faces.image(item), backend.image_size)[0]
        except ImageError as error:
            failures.append(str(error))
    if not x_faces:
        raise PlanError(f"No picture of '{faces.name}' that calibration needs can be read; the first: {failures[0]}")
    ids, x_0 = list(x_faces), torch.stack(list(x_faces.values())).to(backend.device)
    z_sem = backend.encode(x_0)
    names = ["/".join(of_item[item]) for item in ids]
    values = [[of_item[item][place] for item in ids] for place in range(len(columns))]
    through = through_faces(faces, ids, x_0, backend.batch_size)
    min_skill = task.settings.checks.min_skill
    scorers = []
    for place, (column, pole) in enumerate(zip(columns, [task.target_poles, *poles], strict=True)):
        scorer = calibrate(backend, column, z_sem, x_0, values[place], names, poles=pole, min_skill=min_skill)
        given = pole if place > 0 else None  # the target may stand either way: nothing walks along its dipole
        if given and reads_backwards(backend, scorer, z_sem, x_0, values[place], poles=given, min_skill=min_skill):
            first, *_, last = given.ordered
            end = backend.dipoles[given.name].positive[0]
            raise turned_round(given, f"faces with '{first}' look more like '{end}' than faces with '{last}'")
        if (network := task.scorers.get(column)) is not None:
            reading = network_reading(network, through, values[place], backend.layout, column=column)
            reading = _filled(reading, pole) if reading is not None and pole is not None else reading
            scorer = scorer.with_network(network, reading, min_skill=min_skill)
        # a walk is aimed by the latent reading; the target may be guarded by either
        if scorer.latent is None and (place > 0 or scorer.image is None):
            raise PlanError(
                f"The scorers of editor '{backend.name}' cannot tell the groups of '{column}' apart in this dataset, "
                "so its edits could not be verified. Use another editor, check the labels, or lower `min_skill`, "
                "checks=Checks(min_skill=.1) or --checks min_skill=.1."
            )
        scorers.append(scorer)
    effects = backend.effects([pole.name for pole in poles])
    latent = LatentIdentity.fit(backend.normalize(z_sem), values[1:], effects=effects)
    scale = fit_scale(backend, task.identity, latent, through, names, least=task.settings.checks.identity)
    return Scorers(scorers, scale)


def _drawn_ids(cells: Sequence[tuple[str, tuple[str, str]]], per_cell: int, seed: int) -> list[str]:
    """Items to calibrate on: up to ``per_cell`` of each (class, group) cell, drawn by seed.

    Args:
        cells: (item id, (class, group)) of the labelled originals.
        per_cell: items of each cell.
        seed: of the draw.
    """
    ordered = sorted(cells, key=lambda pair: (pair[1], item_seed(seed, "calibrate", pair[0])))
    chosen = []
    for _, members in itertools.groupby(ordered, key=lambda pair: pair[1]):
        chosen += [item for item, _ in itertools.islice(members, per_cell)]
    return chosen
