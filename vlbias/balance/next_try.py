"""After a try: an edit that passes is kept; another one walks on, walks less far, is corrected, or is given up."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from vlbias.balance.attempt import GAINS, Attempt, Job
from vlbias.balance.donors import Donors
from vlbias.balance.scoring import Seen
from vlbias.balance.strength import BEYOND
from vlbias.balance.verification import Reason

__all__ = ["settle"]

# A walk that must go further goes so much further where nothing says how far, and never further than FURTHEST; one that
# went too far comes so much back.
LONGER, FURTHEST, SHORTER = 1.3, 2.0, 0.8
# Factors closer than this have nothing left between them.
NARROWEST = 1.07


def settle(
    job: Job, attempts: list[Attempt], faults: Sequence[Reason | None], seen: Seen, donors: Donors | None
) -> list[Attempt]:
    """Keep the edits that passed; change what the others amount to, or turn their donors down.

    Args:
        job, attempts: whose edits were read.
        faults: what is wrong with each, see ``readings.read_edits``.
        seen: the edits.
        donors: say for which faults another walk is tried; ``None`` after the last try.

    Returns:
        The attempts that are tried again.
    """
    corrections = None if donors is None else _corrections(job, attempts, seen)
    for index, (attempt, fault) in enumerate(zip(attempts, faults, strict=True)):
        correction = None if corrections is None else corrections[index]
        attempt.is_kept = fault is None
        if fault is None or (
            donors is not None and donors.may_walk_again(fault) and _changed(job, attempt, fault, correction)
        ):
            continue
        attempt.reason = fault
    return [attempt for attempt in attempts if attempt.is_open]


def _corrections(job: Job, attempts: list[Attempt], seen: Seen) -> torch.Tensor | None:
    """What brings the attributes that were not to move back to where the donors had them, (b, d)."""
    assert seen.z_sem is not None  # an edit that was written can be read
    z_sem, z_edit = torch.stack([a.z_sem for a in attempts]), torch.stack([a.z_edit for a in attempts])
    return job.backend.correction(z_sem, z_edit, seen.z_sem, [attempt.strengths.keys() for attempt in attempts])


def _changed(job: Job, attempt: Attempt, fault: Reason, correction: torch.Tensor | None) -> bool:
    """Say what the next try is to amount to; False where nothing else can help."""
    if not _adjust(job, attempt, fault, correction is not None):
        return False
    if attempt.rendered is None and correction is not None:
        attempt.correction = correction if attempt.correction is None else attempt.correction + correction
    return True


def _adjust(job: Job, attempt: Attempt, reason: Reason, can_correct: bool) -> bool:
    before, moved_others = attempt.total, reason in (Reason.TARGET_CHANGED, Reason.OTHER_CHANGED)
    if reason is Reason.PROTECTED_NOT_REACHED:
        attempt.low = before
        total = before * _further(attempt)
    elif moved_others and attempt.correction is None and can_correct:
        attempt.rendered = None  # the same walk once more, now with what keeps the others in place
        return True
    elif moved_others or reason is Reason.IDENTITY_LOST:
        attempt.high = before
        total = before * SHORTER
    else:
        return False
    if attempt.low > 0 and attempt.high < float("inf"):
        total = (attempt.low * attempt.high) ** 0.5
    _amount_to(job, attempt, total)
    return max(attempt.total, before) / min(attempt.total, before) > NARROWEST


def _further(attempt: Attempt) -> float:
    """How much further a walk must go that did not arrive, if margins grow on as they have grown so far."""
    assert attempt.scores is not None  # an edit that did not arrive was read
    factors = []
    seen = (attempt.scores.protected_latent, attempt.scores.protected_image)
    for before, now, floor in zip(attempt.margins_before, seen, attempt.floors, strict=True):
        if before is None or now is None or now >= floor:
            continue
        gained = now - before
        factors.append((floor + BEYOND - before) / gained if gained > 0 else FURTHEST)
    return min(max(factors, default=LONGER), FURTHEST)


def _amount_to(job: Job, attempt: Attempt, total: float) -> None:
    """By a gain of what is rendered already, which costs no evaluation, else by another walk."""
    longest = job.checks.max_strength / max(abs(strength) for strength in attempt.strengths.values())
    gains = GAINS if job.backend.adds_difference and attempt.x_0 is not None else (1.0, 1.0)
    gain = total / attempt.factor
    if not gains[0] <= gain <= gains[1] or gains == (1.0, 1.0):
        attempt.factor = min(total, longest)
        attempt.rendered = None
        gain = min(max(total / attempt.factor, gains[0]), gains[1])
    attempt.gain = gain
