"""One donor on its way to becoming an edit, what every chunk shares, and what came of a chunk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from vlbias.balance.identity import Identity, IdentityScale
from vlbias.balance.plan import walks
from vlbias.balance.poles import Poles
from vlbias.balance.scoring import AttributeScorer, Margins, Seen
from vlbias.balance.verification import Checks, Reason, Scores
from vlbias.data import FaceDataset
from vlbias.originals import Encoded
from vlbias.types import Backend

__all__ = ["Attempt", "ChunkResult", "Job", "stack"]


@dataclass(frozen=True)
class Job:
    """What every chunk of a run shares.

    Attributes:
        backend: edits and reads faces.
        faces: the dataset, or ``None`` in prior mode.
        groups: group label -> values of the protected attributes.
        poles: one for each protected attribute.
        target: scorer of the target attribute.
        protected: scorers of the protected attributes.
        identity: see ``identity.identity_scorer``.
        identity_scale: what it made of originals, for the report.
        identity_sees_pictures: whether ``identity`` looks at the donors' pictures.
        checks: what an edit must pass.
        seed: the plan's.
        prior_steps: network evaluations of a decode of a sampled face.
        keep_pairs: decode the donors of kept edits also where they do not enter the dataset.
        size: what edits are written at, one of ``pictures.SIZES``.
        calibration_evaluations: UNet evaluations that calibration took, for the report.
    """

    backend: Backend
    faces: FaceDataset | None
    groups: Mapping[str, tuple[str, ...]]
    poles: Sequence[Poles]
    target: AttributeScorer
    protected: Sequence[AttributeScorer]
    identity: Identity
    identity_scale: IdentityScale
    identity_sees_pictures: bool
    checks: Checks
    seed: int
    prior_steps: int
    keep_pairs: bool
    size: str
    calibration_evaluations: int = 0

    @property
    def dataset(self) -> FaceDataset:
        """The dataset of a run that has one."""
        assert self.faces is not None  # only faces of a dataset are asked for by their ids
        return self.faces

    def usual_walk(self, attempt: Attempt) -> dict[str, float]:
        """Path -> signed strength that carries a median face of the donor's group to the wanted one."""
        return walks(self.poles, self.groups[attempt.giver], self.groups[attempt.wanted])

    def moved(self, attempt: Attempt) -> list[bool]:
        """For each protected attribute whether the edit is to move it."""
        return [old != new for old, new in zip(self.groups[attempt.giver], self.groups[attempt.wanted], strict=True)]

    def target_margins(self, attempts: Sequence[Attempt], seen: Seen) -> Margins:
        """Margins of faces in their own classes."""
        return self.target.margins(seen, [attempt.target for attempt in attempts])

    def group_margins(self, groups: Sequence[str], seen: Seen) -> list[Margins]:
        """For each protected attribute: margins of faces in its value of their ``groups``."""
        return [
            scorer.margins(seen, [self.groups[group][place] for group in groups])
            for place, scorer in enumerate(self.protected)
        ]


@dataclass
class Attempt:
    """One donor on its way to becoming one edit.

    Attributes:
        row: of ``Plan.table``.
        donor: the item; of a drawn face, its name.
        giver: the donor's group.
        seed: of the edit; of a drawn face, what it is drawn from.
        x_0, z_sem: the donor (3, h, w) and its semantic code.
        x_T, residuals: its trace, see ``vlbias.types.Traced``.
        donor_file: the donor as it is written, if it was drawn.
        strengths: path -> calibrated strength that was found for this face.
        correction: (d,) what keeps the other attributes where they are, added to the walk.
        factor: of the strengths, in the walk that was rendered last.
        gain: of what that walk changed in the picture.
        z_edit: the walked code.
        rendered: what it looks like, before the gain; ``None`` where it must be rendered.
        low, high: totals between which the right one lies.
        target_before: (latent, image) margins of the donor in its class.
        margins_before: those of the donor in the wanted group.
        floors: those there that are enough.
    """

    row: Mapping[str, Any]
    donor: str
    giver: str
    seed: int
    x_0: torch.Tensor | None = None
    z_sem: torch.Tensor | None = None
    x_T: torch.Tensor | None = None
    residuals: torch.Tensor | None = None
    donor_file: Encoded | None = None
    strengths: dict[str, float] = field(default_factory=dict)
    correction: torch.Tensor | None = None
    factor: float = 1.0
    gain: float = 1.0
    z_edit: torch.Tensor | None = None
    rendered: torch.Tensor | None = None
    low: float = 0.0
    high: float = float("inf")
    target_before: tuple[float | None, float | None] = (None, None)
    margins_before: tuple[float | None, float | None] = (None, None)
    floors: tuple[float, float] = (0.0, 0.0)

    @property
    def slot(self) -> int:
        """Number of the edit in the plan."""
        return int(self.row["slot"])

    @property
    def target(self) -> str:
        """The class that must stay."""
        return str(self.row["target"])

    @property
    def wanted(self) -> str:
        """The group that the edit is for."""
        return str(self.row["to"])

    @property
    def is_drawn(self) -> bool:
        """Whether the donor comes from the prior, so that there is no larger picture of it."""
        return self.row["donor"] == ""

    @property
    def total(self) -> float:
        """What the edit amounts to, in its first strengths: longer walks and larger changes alike."""
        return self.factor * self.gain

    def record(self) -> dict[str, Any]:
        """What tables and files say of the attempt, as plain values."""
        return {
            "slot": self.slot,
            "split": self.row["split"],
            "target": self.row["target"],
            "donor": self.donor,
            "from": self.giver,
            "to": self.row["to"],
            "path": ";".join(self.strengths) or self.row["path"],
            "strength": ";".join(f"{value * self.total:.4f}" for value in self.strengths.values()),
            "seed": self.seed,
        }


def stack(attempts: Sequence[Attempt], name: str) -> torch.Tensor:
    """One tensor attribute of several attempts, as a batch."""
    return torch.stack([getattr(attempt, name) for attempt in attempts])


@dataclass
class ChunkResult:
    """What a chunk came to.

    Attributes:
        kept: one record an edit, in slot order.
        rejected: one record a donor that was turned down, and one an edit that found no donor.
        files: stem -> file: ``edit-000012``, and ``face-000012`` for its donor in prior mode.
        unet_evaluations: single-image evaluations of the UNet.
    """

    kept: list[dict[str, Any]] = field(default_factory=list)
    rejected: list[dict[str, Any]] = field(default_factory=list)
    files: dict[str, Encoded] = field(default_factory=dict)
    unet_evaluations: int = 0

    def keep(self, attempt: Attempt, file: Encoded, scores: Mapping[str, object], *, stem: str = "edit") -> None:
        """Take an edit over, with its donor where that was drawn."""
        number = f"{attempt.slot:06d}"
        self.kept.append(attempt.record() | {"suffix": file.suffix, "note": " ".join(file.notes)} | dict(scores))
        self.files[f"{stem}-{number}"] = file
        if attempt.donor_file is not None:
            self.files[f"face-{number}"] = attempt.donor_file

    def reject(self, attempt: Attempt, reason: Reason, *, scores: Scores | None = None, detail: str = "") -> None:
        """Note why a donor was turned down."""
        values = dict.fromkeys(Scores.__dataclass_fields__) if scores is None else scores.rounded()
        finite = {name: value if value is None or value == value else None for name, value in values.items()}
        self.rejected.append(attempt.record() | {"reason": str(reason), "detail": detail} | finite)

    def finish(self, unet_evaluations: int) -> ChunkResult:
        """The result with its records in the order of their slots, however the donors came."""
        self.kept.sort(key=lambda record: record["slot"])
        self.rejected.sort(key=lambda record: record["slot"])
        self.unet_evaluations = unet_evaluations
        return self
