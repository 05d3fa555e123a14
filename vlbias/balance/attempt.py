"""One donor on its way to becoming an edit, what every chunk shares, and what came of a chunk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from vlbias.balance.identity import Identity, IdentityScale
from vlbias.balance.poles import Poles
from vlbias.balance.scoring import AttributeScorer, Look, Pair
from vlbias.balance.verification import SCORES, Checks, Reason, Scores
from vlbias.data import FaceDataset
from vlbias.originals import Encoded
from vlbias.types import Backend

__all__ = ["GAINS", "Attempt", "ChunkResult", "Job"]

# The change of a picture may be made smaller or larger by such factors before the face is walked again.
GAINS = (0.6, 1.6)


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


@dataclass
class Attempt:
    """One donor on its way to becoming one edit: what was made of it so far, what was read, and what came of it.

    Each stage adds to it. It is open until an edit is kept or the donor is turned down.

    Attributes:
        row: of ``Plan.table``.
        donor: the item; of a drawn face, its name.
        giver: the donor's group.
        seed: of the edit; of a drawn face, what it is drawn from.
        z_sem: semantic code (d,) of the donor.
        x_0: the donor (3, h, w); ``None`` while nobody needs to see a drawn one.
        look: the donor's own picture at another size, as (1, 3, size, size); ``None`` where there is no picture.
        z_read: code that the encoder finds in a decoded donor; ``None`` for others.
        x_T, residuals, on_drawn_way: its trace, see ``vlbias.types.Traced``.
        donor_file: the donor as it is written, if it was drawn.
        strengths: path -> calibrated strength that was found for this face.
        goal: latent margin in the wanted group that the picture is to show; ``None`` for none, or where several
            attributes move at once.
        correction: (d,) what keeps the other attributes where they are, added to the walk.
        factor: of the strengths, in the walk that was rendered last.
        gain: of what that walk changed in the picture.
        z_edit: the walked code.
        rendered: what it looks like, before the gain; ``None`` where it must be rendered.
        low, high: totals between which the right one lies.
        target_before: (latent, image) margins of the donor in its class.
        moves: for each protected attribute whether the edit is to move it.
        margins_before: (latent, image) margins of the donor in the wanted group.
        floors: those there that are enough.
        scores: what was read of the last edit; ``None`` where none was made.
        file: the last edit as it is written.
        is_kept: whether it passed.
        reason, detail: why the donor was turned down.
    """

    row: Mapping[str, Any]
    donor: str
    giver: str
    seed: int
    z_sem: torch.Tensor = field(init=False, repr=False)
    x_0: torch.Tensor | None = None
    look: Look | None = None
    z_read: torch.Tensor | None = None
    x_T: torch.Tensor = field(init=False, repr=False)
    residuals: torch.Tensor | None = None
    on_drawn_way: bool = False
    donor_file: Encoded | None = None
    strengths: dict[str, float] = field(default_factory=dict)
    goal: float | None = None
    correction: torch.Tensor | None = None
    factor: float = 1.0
    gain: float = 1.0
    z_edit: torch.Tensor = field(init=False, repr=False)
    rendered: torch.Tensor | None = None
    low: float = 0.0
    high: float = float("inf")
    target_before: Pair = (None, None)
    moves: Sequence[bool] = ()
    margins_before: Pair = (None, None)
    floors: tuple[float, float] = (0.0, 0.0)
    scores: Scores | None = None
    file: Encoded | None = None
    is_kept: bool = False
    reason: Reason | None = None
    detail: str = ""

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
    def picture(self) -> torch.Tensor:
        """The donor (3, h, w) where it is known to have been opened or decoded."""
        assert self.x_0 is not None
        return self.x_0

    @property
    def is_open(self) -> bool:
        """Whether neither an edit was kept nor the donor turned down."""
        return not self.is_kept and self.reason is None

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


@dataclass
class ChunkResult:
    """What a chunk came to.

    Attributes:
        kept: one record per edit, in slot order.
        rejected: one record per donor that was turned down, and one an edit that found no donor.
        files: stem -> file: ``edit-000012``, and ``face-000012`` for its donor in prior mode.
        unet_evaluations: single-image evaluations of the UNet.
    """

    kept: list[dict[str, Any]] = field(default_factory=list)
    rejected: list[dict[str, Any]] = field(default_factory=list)
    files: dict[str, Encoded] = field(default_factory=dict)
    unet_evaluations: int = 0

    def take(self, attempts: Sequence[Attempt]) -> list[Mapping[str, Any]]:
        """Take over what came of attempts; the rows of the plan that still wait for an edit."""
        waiting = []
        for attempt in attempts:
            scores = dict.fromkeys(SCORES) if attempt.scores is None else attempt.scores.rounded()
            if attempt.is_kept:
                self.keep(attempt, scores)
                continue
            finite = {name: value if value is None or value == value else None for name, value in scores.items()}
            self.rejected.append(attempt.record() | {"reason": str(attempt.reason), "detail": attempt.detail} | finite)
            if attempt.reason is not Reason.NO_DONOR_LEFT:
                waiting.append(attempt.row)
        return waiting

    def keep(self, attempt: Attempt, scores: Mapping[str, object], *, stem: str = "edit") -> None:
        """Take an edit over, with its donor where that was drawn."""
        file, number = attempt.file, f"{attempt.slot:06d}"
        assert file is not None  # what is kept was written
        self.kept.append(attempt.record() | {"suffix": file.suffix, "note": " ".join(file.notes)} | dict(scores))
        self.files[f"{stem}-{number}"] = file
        if attempt.donor_file is not None:
            self.files[f"face-{number}"] = attempt.donor_file

    def finish(self, unet_evaluations: int) -> ChunkResult:
        """The result with its records in the order of their slots, however the donors came."""
        self.kept.sort(key=lambda record: record["slot"])
        self.rejected.sort(key=lambda record: record["slot"])
        self.unet_evaluations = unet_evaluations
        return self
