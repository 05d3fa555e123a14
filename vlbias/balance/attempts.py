"""The things a chunk handles: the job, a donor on its way to becoming an edit, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from vlbias.balance.identity import Identity, IdentityScale
from vlbias.balance.looks import Look
from vlbias.balance.poles import Poles
from vlbias.balance.readings import AttributeJudge
from vlbias.balance.verify import Checks, Margins, Reason, Scores, read_margins
from vlbias.data import FaceDataset
from vlbias.originals import Encoded
from vlbias.types import Backend

__all__ = ["Attempt", "ChunkResult", "Job", "Passed", "record", "reject", "stack", "target_margins"]


@dataclass(frozen=True)
class Job:
    """What every chunk of a run shares.

    Attributes:
        backend: edits and reads faces.
        faces: the dataset, or ``None`` in prior mode.
        groups: group label -> values of the protected attributes.
        poles: one for each protected attribute.
        target: judge of the target attribute.
        protected: judges of the protected attributes.
        identity: see ``identity.identity_judge``.
        identity_scale: what it made of originals, for the report.
        identity_sees_pictures: whether ``identity`` looks at the donors' pictures.
        checks: what an edit must pass.
        seed: the plan's.
        prior_steps: network evaluations of a decode of a sampled face.
        keep_pairs: decode the donors of kept edits also where they do not enter the dataset.
        size: what edits are written at, one of ``written.SIZES``.
        calibration_evaluations: UNet evaluations that the judges took, for the report.
    """

    backend: Backend
    faces: FaceDataset | None
    groups: Mapping[str, tuple[str, ...]]
    poles: Sequence[Poles]
    target: AttributeJudge
    protected: Sequence[AttributeJudge]
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


@dataclass
class Attempt:
    """One donor on its way to becoming one edit."""

    row: Mapping[str, Any]
    donor: str
    giver: str
    seed: int
    x_0: torch.Tensor | None = None  # (3, h, w)
    z_sem: torch.Tensor | None = None  # (d,)
    x_T: torch.Tensor | None = None
    x_back: torch.Tensor | None = None  # what z_sem and x_T decode to, where edits are put on as differences
    strengths: dict[str, float] = field(default_factory=dict)
    mend: torch.Tensor | None = None  # (d,) what keeps the other attributes where they are, added to the walk
    factor: float = 1.0  # of the strengths, in the walk that was rendered last
    gain: float = 1.0  # of what that walk changed in the picture
    z_edit: torch.Tensor | None = None  # the walked code
    rendered: torch.Tensor | None = None  # what it looks like, before the gain; ``None`` where it must be rendered
    low: float = 0.0
    high: float = float("inf")
    target_margins: tuple[float | None, float | None] = (None, None)
    #: (latent, image) margins of the unedited donor in the wanted group
    margins_before: tuple[float | None, float | None] = (None, None)
    #: (latent, image) margins there that are enough
    floors: tuple[float, float] = (0.0, 0.0)
    donor_file: Encoded | None = None

    @property
    def total(self) -> float:
        """What the edit amounts to, in its first strengths: longer walks and larger changes alike."""
        return self.factor * self.gain


@dataclass
class Passed:
    """An edit that passed, before its donor was confirmed."""

    attempt: Attempt
    file: Encoded
    x_edit: torch.Tensor
    z_found: torch.Tensor
    scores: Scores


def target_margins(
    job: Job,
    attempts: Sequence[Attempt],
    z_sem: torch.Tensor | None,
    x_0: torch.Tensor | None,
    look: Look | None = None,
) -> Margins:
    wanted = [str(attempt.row["target"]) for attempt in attempts]
    return read_margins(job.backend, job.target, wanted, z_sem=z_sem, x_0=x_0, look=look)


def stack(attempts: Sequence[Attempt], name: str) -> torch.Tensor:
    return torch.stack([getattr(attempt, name) for attempt in attempts])


def record(attempt: Attempt) -> dict[str, Any]:
    row = attempt.row
    return {
        "slot": int(row["slot"]),
        "split": row["split"],
        "target": row["target"],
        "donor": attempt.donor,
        "from": attempt.giver,
        "to": row["to"],
        "path": ";".join(attempt.strengths) or row["path"],
        "strength": ";".join(f"{value * attempt.total:.4f}" for value in attempt.strengths.values()),
        "seed": attempt.seed,
    }


def reject(
    result: ChunkResult, attempt: Attempt, reason: Reason, *, scores: Scores | None = None, detail: str = ""
) -> None:
    blank = dict.fromkeys(Scores.__dataclass_fields__)
    values: Mapping[str, Any] = scores.rounded() if scores is not None else blank
    finite = {name: value if value is None or value == value else None for name, value in values.items()}
    result.rejected.append(record(attempt) | {"reason": str(reason), "detail": detail} | finite)
