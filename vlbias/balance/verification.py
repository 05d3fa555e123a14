"""Is an edit what it claims to be? The protected attribute arrived, the target stayed, the person stayed.

Every decoded edit is read twice: CLIP, or a network of the user's own, looks at the picture, the latent probes at the
code that the frozen encoder finds in it. Identity is read in the same semantic space, with the directions in which the
protected attributes differ taken out, so that ageing does not count as becoming somebody else; or by a face network.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from enum import StrEnum

from vlbias.balance.scoring import Pair, Reading
from vlbias.errors import ConfigError
from vlbias.settings import Settings, number
from vlbias.types import Backend

__all__ = ["SCORES", "Checks", "Reason", "Scores", "enough", "verdict"]


class Reason(StrEnum):
    """Why a face was turned down; written to ``rejected.csv``."""

    UNREADABLE = "unreadable"  #: the donor's file cannot be read
    ALREADY_THERE = "already_in_group"  #: the donor reads as the wanted group before any edit
    OUT_OF_REACH = "out_of_reach"  #: no allowed strength carries the code into the wanted group
    DONOR_UNCLEAR = "donor_unclear"  #: a drawn face does not look like what its code said
    PROTECTED_NOT_REACHED = "protected_not_reached"  #: the decoded edit does not read as the wanted group
    TARGET_CHANGED = "target_changed"  #: the target attribute moved along
    OTHER_CHANGED = "other_protected_changed"  #: a protected attribute that was to stay moved along
    IDENTITY_LOST = "identity_lost"  #: somebody else
    NOT_FINITE = "not_finite"  #: NaN or infinity came out of a network
    REFUSED = "refused_by_person"  #: a person looked at the edit and refused it
    NO_DONOR_LEFT = "no_donor_left"  #: every donor assigned to the edit was turned down; the cell stays short


@dataclass(frozen=True)
class Checks(Settings):
    """What an edit must pass. Margins are in units of :class:`Reading`: 0 = border, 1 = typical member of the group.

    Attributes:
        goal: latent margin at which a walk stops, > 0; 1 walks as far as members of the group stand.
        varied: how much edits differ in how far they go, 0..1: 1 as much as members of the group do, each picture like
            one drawn among them; 0 not at all, all walks end like the typical one. ``None`` for what the editor asks
            for: 1 where faces are drawn, 0 of photographs, whose readings are noisy, and noise makes members look
            further apart than they are (docs/evidence.md).
        sure: both scorers must see the edit so far inside the protected group that this share of the originals which
            read so belong to it, 0.5..1 (see ``Reading.sure_margin``).
        reached: a margin that both must see instead, the same for all; ``None`` leaves it to ``sure``.
        donor: a donor whose latent margin in the *wanted* group is above this is there already. One between the border
            and this is walked on to ``goal`` like any other.
        sampled: margin that a decoded, sampled donor must show in each group of its own cell.
        target: margin in its class that the target must keep,
        target_slack: or at most so much less than the donor had.
        identity: least similarity, 1 = the same face, 0 = as unlike as two faces drawn at random.
        retries: further walks (shorter or longer) before the next donor is taken.
        max_strength: longest walk, in calibrated strength.
        random_strength: 0 lets each face walk as far as its scorers ask for. Otherwise strengths are drawn evenly about
            the calibrated one, by this share of it at most: 0.5 draws from 0.5 to 1.5. Nothing is searched for then.
        min_skill: a scorer that reads a dataset's own labels worse than this is not used (1 = never wrong, 0 = chance).
    """

    goal: float = number(1.0, above=0)
    varied: float | None = number(None, 0, 1)
    sure: float = number(0.8, above=0.5, below=1)
    reached: float | None = None
    donor: float = 0.5
    sampled: float = 0.0
    target: float = 0.5
    target_slack: float = 0.25
    identity: float = 0.4
    retries: int = number(4, 0, 1000)
    max_strength: float = number(2.5, above=0)
    random_strength: float = number(0.0, 0, 1)
    min_skill: float = 0.3

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.reached is not None and self.reached > self.goal:
            raise ConfigError(
                f"`checks.reached` ({self.reached}) must not exceed `checks.goal` ({self.goal}): a walk stops there."
            )

    def of(self, backend: Backend) -> Checks:
        """The same with what is left to the editor filled in."""
        return replace(self, varied=backend.varied) if self.varied is None else self


@dataclass(frozen=True)
class Scores:
    """What the scorers read of one edit; ``None`` where a scorer is blind."""

    protected_latent: float | None
    protected_image: float | None
    target_latent: float | None
    target_image: float | None
    others: float | None  # least margin in the protected attributes that were to stay
    identity: float

    def rounded(self) -> dict[str, float | None]:
        """Scores by name with the digits that are written; None where one was not asked for."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        # float32 noise in the last digits must not reach the tables
        return {name: None if value is None else round(value, 4) for name, value in values.items()}


#: Their names, in the order of the tables.
SCORES = tuple(field.name for field in fields(Scores))

#: Margin that is enough where no labelled original says what is.
UNCALIBRATED = 0.4


def enough(reading: Reading | None, checks: Checks) -> float:
    """The margin of one scorer from which an edit has arrived in the protected group."""
    if checks.reached is not None:
        return checks.reached
    found = None if reading is None else reading.sure_margin(checks.sure)
    return UNCALIBRATED if found is None else min(found, checks.goal)


def verdict(
    scores: Scores,
    donor_target: Pair,
    checks: Checks,
    floors: tuple[float, float] = (UNCALIBRATED, UNCALIBRATED),
) -> Reason | None:
    """``None`` where an edit passes, else why it does not; the order of the checks is that of their weight.

    Args:
        scores: readings of the edit.
        donor_target: (latent, image) margins of its donor in the target class; ``None`` where not read.
        checks: the limits.
        floors: (latent, image) margins that are enough in the protected group, see :func:`enough`.
    """
    values = [value for value in vars(scores).values() if value is not None]
    if not all(math.isfinite(value) for value in values):
        return Reason.NOT_FINITE
    for kept, before in zip((scores.target_latent, scores.target_image), donor_target, strict=True):
        floor = checks.target if before is None else min(checks.target, before - checks.target_slack)
        if kept is not None and kept < floor:
            return Reason.TARGET_CHANGED
    if scores.others is not None and scores.others < 0:
        return Reason.OTHER_CHANGED
    if scores.identity < checks.identity:
        return Reason.IDENTITY_LOST
    pairs = zip((scores.protected_latent, scores.protected_image), floors, strict=True)
    if any(value is not None and value < floor for value, floor in pairs):
        return Reason.PROTECTED_NOT_REACHED
    return None
